#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "graft/models/causal_model.hpp"
#include "graft/text/batch.hpp"

namespace graft::inline v0_1 {

/// Rows that batches are made of, whatever they are: `batch` makes one from row numbers.
template <std::floating_point T>
struct BasicDataset {
  Index rows = 0;
  std::function<models::BasicBatch<T>(std::span<const Index> picked)> batch;
  /// The same for a training step, of rows that are changed at random, each time in another way;
  /// `seed` is all that the change depends on. Empty: `batch`.
  std::function<models::BasicBatch<T>(std::span<const Index> picked, std::uint64_t seed)>
      training_batch;
  /// A number that another content would most likely not have: a run goes on from a checkpoint with
  /// the same data only.
  std::uint64_t fingerprint = 0;
};

using Dataset = BasicDataset<float>;

namespace detail {

/// FNV-1a, 64 bits.
class Fingerprint {
 public:
  template <class Number>
  void add(const Number& value) {
    unsigned char bytes[sizeof(Number)];
    std::memcpy(bytes, &value, sizeof(Number));
    for (const unsigned char b : bytes) hash_ = (hash_ ^ b) * 0x100000001b3ULL;
  }
  std::uint64_t value() const { return hash_; }

 private:
  std::uint64_t hash_ = 0xcbf29ce484222325ULL;
};

inline std::uint64_t fingerprint_of(const std::vector<text::Example>& examples) {
  Fingerprint fingerprint;
  for (const auto& example : examples) {
    fingerprint.add(example.length());
    for (const auto id : example.ids) fingerprint.add(id);
    for (const auto label : example.labels) fingerprint.add(label);
    fingerprint.add(example.label);
    fingerprint.add(example.target);
  }
  return fingerprint.value();
}

}  // namespace detail

/// A text batch as the input of a model.
template <std::floating_point T>
models::BasicBatch<T> model_batch(text::TextBatch&& from) {
  models::BasicBatch<T> batch;
  batch.batch = from.batch;
  batch.seq_len = from.seq_len;
  batch.ids = std::move(from.ids);
  batch.token_types = std::move(from.token_types);
  batch.mask = std::move(from.mask);
  batch.labels = std::move(from.labels);
  batch.targets = BasicTensor<T>::from(from.targets, {from.batch});
  return batch;
}

/// Encoded texts as rows; padded with `pad_id` to the longest of a batch.
template <std::floating_point T>
BasicDataset<T> text_dataset(std::vector<text::Example> examples, std::int32_t pad_id) {
  BasicDataset<T> data;
  data.rows = static_cast<Index>(examples.size());
  data.fingerprint = detail::fingerprint_of(examples);
  data.batch = [shared = std::make_shared<const std::vector<text::Example>>(std::move(examples)),
                pad_id](std::span<const Index> picked) {
    return model_batch<T>(text::make_batch(*shared, picked, {.pad_id = std::max(pad_id, 0)}));
  };
  return data;
}

/// Some rows of a dataset as a dataset. @throws ValueError for a row that does not exist.
template <std::floating_point T>
BasicDataset<T> subset(const BasicDataset<T>& data, std::vector<Index> rows) {
  detail::Fingerprint fingerprint;
  fingerprint.add(data.fingerprint);
  for (const Index row : rows) {
    if (row < 0 || row >= data.rows)
      throw ValueError(concat("subset: row ", row, " of ", data.rows));
    fingerprint.add(row);
  }
  BasicDataset<T> part;
  part.rows = static_cast<Index>(rows.size());
  part.fingerprint = fingerprint.value();
  const auto mapped = [rows = std::move(rows)](std::span<const Index> picked) {
    std::vector<Index> result;
    result.reserve(picked.size());
    for (const Index i : picked) result.push_back(rows.at(static_cast<std::size_t>(i)));
    return result;
  };
  part.batch = [all = data.batch, mapped](std::span<const Index> picked) {
    return all(mapped(picked));
  };
  if (data.training_batch)
    part.training_batch = [all = data.training_batch, mapped](std::span<const Index> picked,
                                                              std::uint64_t seed) {
      return all(mapped(picked), seed);
    };
  return part;
}

}  // namespace graft::inline v0_1
