#pragma once

#include <string>
#include <vector>

#include "graft/models/model.hpp"
#include "graft/text/tokenizer.hpp"

/// Guesses of masked language models.
namespace cli {

struct Guess {
  std::string token;
  double probability = 0;
};
/// The likeliest tokens at each mask token of each text, the best first: [text][mask][guess].
/// @throws ValueError for a text without a mask token, or of more than `max_tokens` tokens; a
/// tokenizer without one
std::vector<std::vector<std::vector<Guess>>> guess_masks(const graft::models::Model& model,
                                                         const graft::text::Tokenizer& tokenizer,
                                                         const std::vector<std::string>& texts,
                                                         graft::Index top, graft::Index max_tokens,
                                                         graft::Index batch_size);

/// e^z / Σ e^z
std::vector<double> softmax(const float* z, graft::Index count);

}  // namespace cli
