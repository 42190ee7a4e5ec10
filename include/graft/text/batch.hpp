#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "graft/base/error.hpp"
#include "graft/base/types.hpp"

namespace graft::inline v0_1::text {

/// Label of what does not count in the loss.
inline constexpr std::int64_t kIgnoredLabel = -100;

/// One training example.
struct Example {
  std::vector<std::int32_t> ids;
  std::vector<std::int32_t> token_types;  ///< empty: all 0
  /// Language modelling: one label a token, equal to the token or kIgnoredLabel; the loss of a
  /// decoder compares the prediction at position t with the label at t + 1. Empty for
  /// classification.
  std::vector<std::int64_t> labels;
  std::int64_t label = kIgnoredLabel;  ///< class
  float target = 0;                    ///< value, for regression

  Index length() const { return static_cast<Index>(ids.size()); }
  bool operator==(const Example&) const = default;
};

/// Examples of one length, row by row; padded on the right.
struct TextBatch {
  Index batch = 0;
  Index seq_len = 0;
  std::vector<std::int32_t> ids;          ///< [batch, seq_len]
  std::vector<std::int32_t> token_types;  ///< [batch, seq_len]
  std::vector<unsigned char> mask;        ///< [batch, seq_len], 1 = a real token
  std::vector<std::int64_t> labels;       ///< [batch, seq_len], or [batch] for classification
  std::vector<float> targets;             ///< [batch]
  std::vector<Index> lengths;             ///< [batch]
};

struct PadOptions {
  std::int32_t pad_id = 0;
  Index multiple_of = 1;  ///< the length is rounded up to a multiple of this
  Index length = 0;       ///< fixed length; 0: that of the longest example
};

/// Puts examples into a batch. Padding gets mask 0 and kIgnoredLabel.
/// Errors: ValueError for no rows, a row out of range, an example without tokens or longer than a
/// fixed length, or labels that do not fit the tokens; language and classification examples mixed.
inline TextBatch make_batch(std::span<const Example> examples, std::span<const Index> rows,
                            const PadOptions& options = {}) {
  if (rows.empty()) throw ValueError("make_batch: no rows");
  if (options.multiple_of < 1)
    throw ValueError(concat("make_batch: multiple_of ", options.multiple_of));
  TextBatch batch;
  batch.batch = static_cast<Index>(rows.size());
  bool language = false;
  for (const Index row : rows) {
    if (row < 0 || row >= static_cast<Index>(examples.size()))
      throw ValueError(concat("make_batch: row ", row, " of ", examples.size(), " examples"));
    const Example& example = examples[static_cast<std::size_t>(row)];
    const std::size_t length = example.ids.size();
    if (row == rows.front()) language = !example.labels.empty();
    if (length == 0 || (language ? example.labels.size() != length : !example.labels.empty()) ||
        (!example.token_types.empty() && example.token_types.size() != length)) {
      throw ValueError(concat("make_batch: example ", row, " has ", length, " tokens, ",
                              example.labels.size(), " labels and ", example.token_types.size(),
                              " token types"));
    }
    batch.seq_len = std::max(batch.seq_len, example.length());
  }
  if (options.length > 0) {
    if (batch.seq_len > options.length) {
      throw ValueError(concat("make_batch: an example has ", batch.seq_len,
                              " tokens; the length is ", options.length));
    }
    batch.seq_len = options.length;
  }
  batch.seq_len =
      (batch.seq_len + options.multiple_of - 1) / options.multiple_of * options.multiple_of;

  const auto columns = static_cast<std::size_t>(batch.seq_len);
  const std::size_t total = rows.size() * columns;
  batch.ids.assign(total, options.pad_id);
  batch.token_types.assign(total, 0);
  batch.mask.assign(total, 0);
  batch.labels.assign(language ? total : rows.size(), kIgnoredLabel);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Example& example = examples[static_cast<std::size_t>(rows[i])];
    const auto begin = static_cast<std::ptrdiff_t>(i * columns);
    std::copy(example.ids.begin(), example.ids.end(), batch.ids.begin() + begin);
    std::copy(example.token_types.begin(), example.token_types.end(),
              batch.token_types.begin() + begin);
    std::fill_n(batch.mask.begin() + begin, example.ids.size(), static_cast<unsigned char>(1));
    if (language) {
      std::copy(example.labels.begin(), example.labels.end(), batch.labels.begin() + begin);
    } else {
      batch.labels[i] = example.label;
    }
    batch.targets.push_back(example.target);
    batch.lengths.push_back(example.length());
  }
  return batch;
}

}  // namespace graft::inline v0_1::text
