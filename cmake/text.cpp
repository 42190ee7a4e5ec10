// The compiled library of files: tokenizers, once.
#define GRAFT_FILES_COMPILED
#define GRAFT_FILES_IMPLEMENTATION

#include "graft/text/impl/bpe_impl.hpp"
#include "graft/text/impl/decoder_impl.hpp"
#include "graft/text/impl/gguf_tokenizer_impl.hpp"
#include "graft/text/impl/load_tokenizer_impl.hpp"
#include "graft/text/impl/normalizer_impl.hpp"
#include "graft/text/impl/pre_tokenizer_impl.hpp"
#include "graft/text/impl/regex_impl.hpp"
#include "graft/text/impl/tokenizer_impl.hpp"
#include "graft/text/impl/tokenizer_json_impl.hpp"
