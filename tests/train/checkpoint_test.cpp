#include "graft/train/checkpoint.hpp"

#include <catch2/catch.hpp>

#include "graft/optim/adamw.hpp"
#include "io/temporary_folder.hpp"
#include "train/tiny_model.hpp"

using graft::Index;
using graft_test::TemporaryFolder;

namespace {

/// Gives every parameter a gradient and takes a step.
void move(graft::AdamW& optimizer, float gradient) {
  for (const auto& p : optimizer.parameters())
    p.mutable_grad() = graft::Tensor::full(p.shape(), gradient);
  optimizer.step();
  optimizer.zero_grad();
}

}  // namespace

TEST_CASE("a checkpoint holds adapters and optimiser bit for bit") {
  const TemporaryFolder folder;
  tiny::Setup setup;
  graft::AdamW optimizer(setup.adapters.parameters());
  move(optimizer, 0.3F);
  move(optimizer, -0.1F);
  const auto path =
      graft::save_checkpoint(folder.path(), 2, setup.adapters, optimizer, {{"note", 5}});
  CHECK(path == folder / "checkpoint-2");
  CHECK(folder.entries() == 1);

  tiny::Setup again;
  graft::AdamW restored(again.adapters.parameters());
  const auto state = graft::load_checkpoint(path, again.adapters, restored);
  CHECK(state.at("note") == 5);
  CHECK(state.at("step") == 2);
  CHECK(tiny::values(again.adapters) == tiny::values(setup.adapters));
  move(optimizer, 0.7F);
  move(restored, 0.7F);
  CHECK(tiny::values(again.adapters) == tiny::values(setup.adapters));

  tiny::Setup elsewhere;
  elsewhere.adapters.load("loaded", path / "adapters" / "default");
  CHECK(elsewhere.adapters.active() == std::vector<std::string>{"loaded"});
}

TEST_CASE("tensors that adapters do not save are kept beside the optimiser") {
  const TemporaryFolder folder;
  graft::AdapterTensor<float> hidden;
  hidden.saved = false;
  hidden.parameter = graft::Parameter(graft::Tensor::from({1, 2, 3}, {3}));
  tiny::Setup setup;
  setup.adapters.at("default").add_tensor("secret", hidden);
  const graft::AdamW optimizer(setup.adapters.parameters());
  const auto path = graft::save_checkpoint(folder.path(), 1, setup.adapters, optimizer, {});

  tiny::Setup again;
  auto other = hidden;
  other.parameter = graft::Parameter(graft::Tensor::zeros({3}));
  again.adapters.at("default").add_tensor("secret", other);
  graft::AdamW restored(again.adapters.parameters());
  graft::load_checkpoint(path, again.adapters, restored);
  CHECK(other.parameter.value()[2] == 3);
}

TEST_CASE("only the newest checkpoints are kept, and what a killed run left is removed") {
  const TemporaryFolder folder;
  tiny::Setup setup;
  const graft::AdamW optimizer(setup.adapters.parameters());
  std::filesystem::create_directories(folder / ".checkpoint-3.new");
  std::filesystem::create_directories(folder / "checkpoint-notes");
  for (const Index step : {Index{8}, Index{9}, Index{10}, Index{10}})
    graft::save_checkpoint(folder.path(), step, setup.adapters, optimizer, {}, 2);
  const auto list = graft::list_checkpoints(folder.path());
  REQUIRE(list.size() == 2);
  CHECK(list[0].first == 9);
  CHECK(list[1].first == 10);
  CHECK(folder.entries() == 3);
  CHECK(graft::list_checkpoints(folder / "absent").empty());
}

TEST_CASE("a damaged checkpoint is refused with the name of the file") {
  const TemporaryFolder folder;
  tiny::Setup setup;
  graft::AdamW optimizer(setup.adapters.parameters());
  move(optimizer, 0.3F);
  const auto path = graft::save_checkpoint(folder.path(), 1, setup.adapters, optimizer, {});
  std::filesystem::resize_file(path / "training.safetensors", 100);
  CHECK_THROWS_WITH(graft::load_checkpoint(path, setup.adapters, optimizer),
                    Catch::Contains("training.safetensors"));
  std::filesystem::remove(path / "state.json");
  CHECK_THROWS_WITH(graft::load_checkpoint(path, setup.adapters, optimizer),
                    Catch::Contains("state.json"));
}
