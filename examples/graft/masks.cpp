#include "masks.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>

#include "graft/text/masked.hpp"
#include "graft/train/evaluate.hpp"
#include "graft/train/masked_dataset.hpp"

namespace cli {

using graft::concat;
using graft::Index;

MaskedRows masked_rows(const Classifier& opened, const graft::text::Tokenizer& tokenizer,
                       const DataOptions& data, const LabelledOptions& columns, double rate,
                       std::uint64_t seed) {
  if (!(rate > 0 && rate < 1))
    throw graft::ValueError(
        concat("--mask-rate: ", format_number(rate, "%g"), "; expected a number between 0 and 1"));
  const auto masking = graft::text::masking_of(tokenizer, opened.model->info().vocabulary, rate);
  if (data.sequence_length > opened.max_tokens)
    throw graft::ValueError(concat("--sequence-length: ", data.sequence_length,
                                   ", and the model has ", opened.max_tokens, " positions"));
  if (!std::filesystem::exists(data.data)) throw graft::IoError(data.data + ": no such data file");
  graft::text::MaskedDataOptions options;
  options.sequence_length = data.sequence_length;
  options.packing = !data.no_packing;
  options.unit = document_unit(data.documents);
  options.text_column = columns.text_column;
  options.header = !columns.no_header;
  auto texts = graft::text::load_masked_data(data.data, tokenizer, options);
  auto line = concat(data_line(data, texts), ", ", percent(rate), " to guess");
  return {
      graft::masked_dataset<float>(std::move(texts.examples), masking, tokenizer.pad_id(), seed),
      std::move(line)};
}

std::vector<double> softmax(const float* z, Index count) {
  const double highest = *std::max_element(z, z + count);
  std::vector<double> p;
  for (Index c = 0; c < count; ++c) p.push_back(std::exp(static_cast<double>(z[c]) - highest));
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& v : p) v /= sum;
  return p;
}

std::vector<std::vector<std::vector<Guess>>> guess_masks(const graft::models::Model& model,
                                                         const graft::text::Tokenizer& tokenizer,
                                                         const std::vector<std::string>& texts,
                                                         Index top, Index max_tokens,
                                                         Index batch_size) {
  const auto mask = graft::text::masking_of(tokenizer, model.info().vocabulary).mask_id;
  std::vector<graft::text::Example> examples;
  std::vector<std::size_t> counts;
  for (const auto& text : texts) {
    auto encoding = tokenizer.encode_single(text);
    if (std::ssize(encoding.ids) > max_tokens)
      throw graft::ValueError(concat("text ", examples.size() + 1, ": ", encoding.ids.size(),
                                     " tokens; at most ", max_tokens, " fit"));
    graft::text::Example example;
    for (const auto id : encoding.ids)
      example.labels.push_back(id == mask ? id : graft::text::kIgnoredLabel);
    example.ids = std::move(encoding.ids);
    example.token_types = std::move(encoding.type_ids);
    const auto count = std::count(example.ids.begin(), example.ids.end(), mask);
    if (count == 0)
      throw graft::ValueError(concat("text ", examples.size() + 1, ": no ", tokenizer.token(mask),
                                     " to guess in '", text, "'"));
    counts.push_back(static_cast<std::size_t>(count));
    examples.push_back(std::move(example));
  }
  // Logits are as wide as the vocabulary: those of a batch at a time.
  std::vector<std::vector<std::vector<Guess>>> result;
  const auto step = static_cast<std::size_t>(batch_size);
  for (std::size_t first = 0; first < examples.size(); first += step) {
    const std::size_t last = std::min(first + step, examples.size());
    const auto at = [&](std::size_t i) { return examples.begin() + static_cast<Index>(i); };
    const auto logits =
        graft::predict(model,
                       graft::text_dataset<float>(
                           {std::make_move_iterator(at(first)), std::make_move_iterator(at(last))},
                           tokenizer.pad_id()),
                       batch_size);
    Index row = 0;
    for (std::size_t text = first; text < last; ++text) {
      result.emplace_back(counts[text]);
      for (auto& guesses : result.back()) {
        const auto p = softmax(logits->data() + row++ * logits->cols(), logits->cols());
        std::vector<std::int32_t> order(p.size());
        std::iota(order.begin(), order.end(), 0);
        const auto best = order.begin() + std::min<Index>(top, std::ssize(order));
        const auto likelier = [&](std::int32_t a, std::int32_t b) {
          const double of_a = p[static_cast<std::size_t>(a)], of_b = p[static_cast<std::size_t>(b)];
          return of_a != of_b ? of_a > of_b : a < b;
        };
        std::partial_sort(order.begin(), best, order.end(), likelier);
        for (auto id = order.begin(); id != best; ++id)
          guesses.push_back({tokenizer.decode({&*id, 1}), p[static_cast<std::size_t>(*id)]});
      }
    }
  }
  return result;
}

}  // namespace cli
