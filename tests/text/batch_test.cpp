#include "graft/text/batch.hpp"

#include <catch2/catch.hpp>
#include <vector>

using graft::Index;
using namespace graft::text;

namespace {

const std::vector<Example> kLanguage{{{1, 2, 3}, {}, {kIgnoredLabel, 2, 3}}, {{4}, {}, {4}}};
const std::vector<Example> kClasses{{{1, 2, 3}, {0, 0, 1}, {}, 2, 0.5F},
                                    {{4, 5}, {}, {}, 0, -1.0F}};

TextBatch batch_of(const std::vector<Example>& examples, std::vector<Index> rows,
                   const PadOptions& options = {}) {
  return make_batch(examples, rows, options);
}

}  // namespace

TEST_CASE("Rows are padded to the longest, and padding counts nowhere") {
  const TextBatch batch = batch_of(kLanguage, {1, 0}, {.pad_id = 9});
  CHECK(batch.batch == 2);
  CHECK(batch.seq_len == 3);
  CHECK(batch.ids == std::vector<std::int32_t>{4, 9, 9, 1, 2, 3});
  CHECK(batch.mask == std::vector<unsigned char>{1, 0, 0, 1, 1, 1});
  CHECK(batch.labels == std::vector<std::int64_t>{4, -100, -100, -100, 2, 3});
  CHECK(batch.lengths == std::vector<Index>{1, 3});
}

TEST_CASE("Classes come one a row, with token types and targets") {
  const TextBatch batch = batch_of(kClasses, {0, 1}, {.multiple_of = 4});
  CHECK(batch.seq_len == 4);
  CHECK(batch.labels == std::vector<std::int64_t>{2, 0});
  CHECK(batch.targets == std::vector<float>{0.5F, -1.0F});
  CHECK(batch.token_types == std::vector<std::int32_t>{0, 0, 1, 0, 0, 0, 0, 0});
  CHECK(batch_of(kClasses, {1}, {.length = 8}).seq_len == 8);
}

TEST_CASE("What does not fit together is refused") {
  CHECK_THROWS_AS(batch_of(kLanguage, {}), graft::ValueError);
  CHECK_THROWS_AS(batch_of(kLanguage, {2}), graft::ValueError);
  CHECK_THROWS_AS(batch_of(kLanguage, {-1}), graft::ValueError);
  CHECK_THROWS_AS(batch_of(kLanguage, {0}, {.length = 2}), graft::ValueError);
  CHECK_THROWS_AS(batch_of({{{}, {}, {}}}, {0}), graft::ValueError);
  CHECK_THROWS_AS(batch_of({{{1, 2}, {}, {1}}}, {0}), graft::ValueError);
  CHECK_THROWS_AS(batch_of({{{1, 2}, {0}, {}}}, {0}), graft::ValueError);
  CHECK_THROWS_AS(batch_of({kLanguage[0], kClasses[0]}, {0, 1}), graft::ValueError);
  CHECK_THROWS_AS(batch_of({kLanguage[0], kClasses[0]}, {1, 0}), graft::ValueError);
}
