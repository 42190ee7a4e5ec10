// Tokenizers, compiled once for our own programs.
#define GRAFT_FILES_IMPLEMENTATION

#include "graft/text/load_tokenizer.hpp"
