// Reading and writing of files, compiled once for all users.
#define GRAFT_FILES_IMPLEMENTATION

#include "graft/io/gguf.hpp"
#include "graft/io/json.hpp"
#include "graft/io/safetensors.hpp"
