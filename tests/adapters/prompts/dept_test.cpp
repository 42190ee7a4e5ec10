#include "graft/adapters/prompts/dept.hpp"

#include "adapters/prompts/tiny_llama.hpp"

using prompts::kWidth;

TEST_CASE("DePT: count, gradients, generation, files") {
  const graft::DeptConfig config{.num_virtual_tokens = 3, .r = 2, .max_length = 5, .scaling = 0.7};
  prompts::Setup<double> setup(config);
  CHECK(setup.set().trainable_elements() == 3 * kWidth + (5 + kWidth) * 2);
  CHECK(setup.gradient_error() < 1e-6);
  CHECK(setup.expect_same_after_saving() ==
        std::vector<std::string>{"base_model.model.model.embed_tokens.dept_A",
                                 "base_model.model.model.embed_tokens.dept_C",
                                 "base_model.model.prompt_embeddings"});
  prompts::Setup<float> single(config);
  single.expect_cached_generation();
}

TEST_CASE("DePT starts as prompt tuning and leaves tokens beyond its length alone") {
  prompts::Setup<double> setup(graft::DeptConfig{.num_virtual_tokens = 2, .r = 2, .max_length = 2});
  const auto before = setup.logits({4, 2, 8});
  for (const auto& [key, tensor] : setup.set().tensors())
    if (key.ends_with("dept_A")) tensor.parameter.assign(checks::random_tensor<double>({2, 2}, 3));
  CHECK(checks::relative_error(setup.logits({4, 2, 8}), before) == 0);
  graft::BasicTape<double> tape({.gradients = false});
  setup.randomize();
  auto context = std::make_shared<graft::ForwardContext>();
  context->batch = 1;
  tape.set_context(context);
  const auto& site = *setup.model.sites().embedding.front();
  const std::vector<std::int32_t> ids{4, 2, 8};
  const auto rows = site(tape, ids).value(), plain = site.table().lookup(ids);
  CHECK(rows(1, 0) != plain(1, 0));
  for (graft::Index j = 0; j < kWidth; ++j) CHECK(rows(2, j) == plain(2, j));
  CHECK_THROWS_WITH(setup.adapters.merge(), Catch::Contains("position"));
  CHECK_THROWS_WITH(setup.adapters.add("q", graft::DeptConfig{.r = 0}), Catch::Contains("r 0"));
}
