// The compiled library of files, once.
#define GRAFT_FILES_COMPILED
#define GRAFT_FILES_IMPLEMENTATION

#include "graft/io/impl/gguf_impl.hpp"
#include "graft/io/impl/json_impl.hpp"
#include "graft/io/impl/safetensors_impl.hpp"
