// Tokenizers, compiled once for all users.
#define GRAFT_FILES_IMPLEMENTATION

#include "graft/text/load_tokenizer.hpp"
