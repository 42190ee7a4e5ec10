#pragma once

#include <string>
#include <vector>

#include "graft/models/model.hpp"
#include "graft/text/tokenizer.hpp"
#include "graft/train/dataset.hpp"
#include "labels.hpp"

/// Texts for masked language models, and what these guess.
namespace cli {

/// Texts whose tokens are hidden, and a line about them.
struct MaskedRows {
  graft::Dataset rows;
  std::string line;
};
/// @param rate  share of the tokens to guess; which ones are hidden where a model is judged depends
/// on the seed and the number of the row
/// @throws ValueError for a rate outside of (0, 1), rows longer than the model's positions, a
/// tokenizer without a mask token
MaskedRows masked_rows(const Classifier& opened, const graft::text::Tokenizer& tokenizer,
                       const DataOptions& data, const LabelledOptions& columns, double rate,
                       std::uint64_t seed);

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
