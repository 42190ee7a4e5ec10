#include "graft/train/masked_dataset.hpp"

#include <catch2/catch.hpp>
#include <vector>

using graft::Index;

namespace {

constexpr graft::text::Masking kMasking{0.3, 4, 50};

graft::Dataset data(std::uint64_t seed = 1) {
  std::vector<graft::text::Example> examples(6);
  for (std::size_t i = 0; i < examples.size(); ++i)
    for (std::size_t t = 0; t < 20 + i; ++t) {
      examples[i].ids.push_back(static_cast<std::int32_t>(5 + (7 * i + t) % 40));
      examples[i].labels.push_back(examples[i].ids.back());
    }
  return graft::masked_dataset<float>(std::move(examples), kMasking, 0, seed);
}

/// Labels of row `number` of a batch, without padding.
std::vector<std::int64_t> labels_of(const graft::models::Batch& batch, Index number, Index length) {
  const auto begin = batch.labels.begin() + number * batch.seq_len;
  return {begin, begin + length};
}

}  // namespace

TEST_CASE("An evaluation hides the same tokens of a row, whatever rows are beside it") {
  const auto all = data();
  const std::vector<Index> two{3, 5}, other{5, 0, 3};
  const auto a = all.batch(two), b = all.batch(other);
  CHECK(labels_of(a, 0, 23) == labels_of(b, 2, 23));
  CHECK(labels_of(a, 1, 25) == labels_of(b, 0, 25));
  CHECK(labels_of(a, 0, 23) != labels_of(data(2).batch(two), 0, 23));
  const auto part = graft::subset(all, {5, 3});
  const std::vector<Index> second{1};
  CHECK(part.batch(second).ids == std::vector<std::int32_t>(a.ids.begin(), a.ids.begin() + 23));
}

TEST_CASE("A step hides other tokens than the next one, and the same when it is done again") {
  const auto all = data();
  const std::vector<Index> rows{0, 1, 2};
  const auto step = all.training_batch(rows, 11);
  CHECK(step.ids == all.training_batch(rows, 11).ids);
  CHECK(step.labels == all.training_batch(rows, 11).labels);
  CHECK(step.labels != all.training_batch(rows, 12).labels);
  const std::vector<Index> twice{2, 2};
  const auto same = all.training_batch(twice, 5);
  CHECK(labels_of(same, 0, 22) != labels_of(same, 1, 22));
  const auto part = graft::subset(all, {2, 1, 0});
  const std::vector<Index> turned{2, 1, 0};
  CHECK(part.training_batch(turned, 11).ids == step.ids);
}
