#include "graft/adapters/prompts/multitask_prompt_tuning.hpp"

#include "adapters/prompts/tiny_llama.hpp"

namespace {

graft::MultitaskPromptTuningConfig multitask_config(graft::Index tasks = 3) {
  graft::MultitaskPromptTuningConfig c;
  c.base.prompt.num_virtual_tokens = 3;
  c.num_tasks = tasks;
  c.num_ranks = 2;
  return c;
}

}  // namespace

TEST_CASE("Multitask prompt tuning: count, gradients, generation, files") {
  prompts::Setup<double> setup(multitask_config());
  CHECK(setup.set().trainable_elements() == 3 * 12 + 3 * 2 * (3 + 12));
  CHECK(setup.gradient_error() < 1e-6);
  CHECK(setup.expect_same_after_saving().size() == 3);
  prompts::Setup<float> single(multitask_config(1));
  single.expect_cached_generation();
}

TEST_CASE("Multitask prompt tuning needs the task of each row, and refuses one that there is not") {
  prompts::Setup<double> setup(multitask_config(2));
  auto batch = setup.batch();
  graft::BasicTape<double> tape;
  batch.task_ids = {0};
  CHECK_THROWS_WITH(setup.model.loss(tape, batch), Catch::Contains("1 task ids"));
  batch.task_ids = {0, 2};
  CHECK_THROWS_WITH(setup.model.loss(tape, batch), Catch::Contains("task 2 of 2"));
}

TEST_CASE("A target task starts from the average or one of the source's tasks") {
  prompts::Setup<double> setup(multitask_config(3));
  setup.randomize();
  const auto folder = std::filesystem::temp_directory_path() /
                      graft::concat("graft_multitask_", std::random_device{}());
  setup.adapters.save("p", folder);
  auto c = multitask_config(1);
  c.prompt_tuning_init_state_dict_path = (folder / "adapter_model.safetensors").string();
  const auto source = setup.set().parameters();
  const auto& rows = source[2].value();
  const graft::Index size = rows.size() / 3;
  c.base.prompt_tuning_init = "EXACT_SOURCE_TASK";
  c.prompt_tuning_init_task = 2;
  const auto exact = setup.adapters.add("exact", c).parameters();
  CHECK(exact[2].value()[1] == Approx(rows[2 * size + 1]));
  c.base.prompt_tuning_init = "AVERAGE_SOURCE_TASKS";
  const auto average = setup.adapters.add("average", c).parameters();
  CHECK(average[2].value()[1] == Approx((rows[1] + rows[size + 1] + rows[2 * size + 1]) / 3));
  c.base.prompt_tuning_init = "ONLY_SOURCE_SHARED";
  const auto shared = setup.adapters.add("shared", c).parameters();
  CHECK(shared[0].value()[5] == Approx(source[0].value()[5]));
  CHECK(shared[2].value()[1] != Approx(rows[1]));
  c.prompt_tuning_init_state_dict_path.reset();
  CHECK_THROWS_WITH(setup.adapters.add("none", c),
                    Catch::Contains("prompt_tuning_init_state_dict_path"));
  std::filesystem::remove_all(folder);
}
