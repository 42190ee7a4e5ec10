#include "graft/models/model.hpp"

#include <catch2/catch.hpp>

using graft::Index;

TEST_CASE("the prompt of a row are its tokens before the first that is to be predicted") {
  graft::models::Batch batch;
  batch.batch = 4;
  batch.seq_len = 4;
  batch.ids.assign(16, 1);
  CHECK(graft::models::tokens_before_labels(batch).empty());
  batch.labels = {-100, -100, 5,    6,     // two tokens, an answer of two
                  -100, -100, -100, 7,     // padding first
                  3,    4,    5,    -100,  // no prompt apart: all of it
                  -100, -100, -100, -100};
  batch.mask = {1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1, 0, 1, 1, 0, 0};
  CHECK(graft::models::tokens_before_labels(batch) == std::vector<Index>{2, 1, 3, 2});

  graft::Tape tape;
  auto context = graft::models::set_forward_context(tape, batch, {},
                                                    graft::models::tokens_before_labels(batch));
  CHECK(context->prompt_lengths == std::vector<Index>{2, 1, 3, 2});
  batch.prompt_lengths = {1, 1, 1, 1};
  context = graft::models::set_forward_context(tape, batch, {}, {9, 9, 9, 9});
  CHECK(context->prompt_lengths == batch.prompt_lengths);
  CHECK(context->of_rows({1, 3}, "a").prompt_lengths == std::vector<Index>{1, 1});
}
