#include "graft/adapters/prompts/llama_adapter_v2.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using Method = graft::BasicLlamaAdapterV2<double>;
using graft::LlamaAdapterV2;

TEST_CASE("LLaMA-Adapter V2 scales inputs or outputs and adds a bias") {
  graft::LlamaAdapterV2Config output;
  output.side = "output";
  for (const auto& config : {graft::LlamaAdapterV2Config{}, output}) {
    CHECK(checks::change_at_init<Method>(config) == 0);
    CHECK(checks::gradient_error<Method>(config, 7, 13) < 1e-8);
    for (const bool bias : {true, false})
      CHECK(checks::merge_error<LlamaAdapterV2>(config, 9, 5, bias) < 1e-5);
  }
  CHECK(checks::trained<LlamaAdapterV2>({}, 10, 12) == 22);
  CHECK(checks::trained<LlamaAdapterV2>(output, 10, 12) == 20);
  output.side = "both";
  CHECK_THROWS_AS(checks::trained<LlamaAdapterV2>(output), graft::ValueError);
}
