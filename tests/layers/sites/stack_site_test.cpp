#include "graft/layers/sites/stack_site.hpp"

#include <catch2/catch.hpp>

#include "graft/autograd/ops/elementwise.hpp"

using graft::BlockTokens;
using graft::Index;
using graft::Tape;
using graft::Tensor;
using graft::Var;

namespace {

using Adapter = graft::StackAdapterInterface<float>;

/// Adds to the input of every block, and to what the model has at the end.
struct Adds final : Adapter {
  explicit Adds(float value) : amount(value) {}
  void begin(Tape&) const override { ++begun; }
  Var enter(Index, const Var& x) const override { return add_scalar(x, amount); }
  void leave(Index, const Var& x) const override { left.push_back(x.value()[0]); }
  Var finish(const Var& x) const override { return add_scalar(x, 100 * amount); }
  float amount;
  mutable int begun = 0;
  mutable std::vector<float> left;
};
/// Runs the last block alone, and may drop tokens.
struct Runs final : Adapter {
  explicit Runs(Index dropped = 0) : drop(dropped) {}
  void begin(Tape&) const override {}
  Var enter(Index, const Var& x) const override { return x; }
  void leave(Index, const Var&) const override {}
  bool runs_blocks() const override { return true; }
  Var run(const Var& x, const graft::StackBlocks<float>& blocks) const override {
    const auto y = blocks.block(blocks.count - 1, x, blocks.tokens);
    return drop == 0 ? y : slice(y, 0, 0, y.rows() - drop * blocks.tokens.batch);
  }
  Index drop;
};

/// Block l multiplies by l + 2.
graft::StackBlocks<float> blocks(Index count, Index batch = 1) {
  graft::StackBlocks<float> list;
  list.count = count;
  list.tokens.batch = batch;
  list.block = [](Index l, const Var& x, const BlockTokens&) {
    return scale(x, static_cast<float>(l + 2));
  };
  return list;
}
std::vector<float> values(const Var& x) { return {x.value().begin(), x.value().end()}; }

}  // namespace

TEST_CASE("Some rows of the tokens of a block keep their masks, fill and positions") {
  BlockTokens tokens;
  tokens.batch = 3;
  tokens.key_mask =
      std::make_shared<std::vector<unsigned char>>(std::vector<unsigned char>{1, 0, 1, 1, 0, 1});
  tokens.fill = {0, 1, 2};
  tokens.positions = {0, 1, 10, 11, 20, 21};
  const auto part = tokens.of_rows({2, 0});
  CHECK(part.batch == 2);
  CHECK(*part.key_mask == std::vector<unsigned char>{0, 1, 1, 0});
  CHECK(part.fill == std::vector<Index>{2, 0});
  CHECK(part.positions == std::vector<Index>{20, 21, 0, 1});
  const auto bare = BlockTokens{.batch = 3}.of_rows({1});
  CHECK(bare.key_mask == nullptr);
  CHECK(bare.fill.empty());
  CHECK(bare.positions.empty());
}

TEST_CASE("Adapters go along with the hidden states from block to block") {
  graft::BasicStackSite<float> stack("blocks");
  const auto one = std::make_shared<Adds>(1.0F), ten = std::make_shared<Adds>(10.0F);
  stack.adapters() = {{"one", one}, {"ten", ten}};
  Tape tape({.gradients = false});
  const auto x = tape.constant(Tensor::from({1, 2}, {2, 1}));
  CHECK_FALSE(stack.runs_blocks());
  CHECK(values(stack.enter(0, x)) == std::vector<float>{1, 2});
  stack.activate({"one", "ten"});
  stack.begin(tape);
  CHECK(one->begun == 1);
  CHECK(values(stack.enter(0, x)) == std::vector<float>{12, 13});
  CHECK(values(stack.finish(x)) == std::vector<float>{1101, 1102});
  // (1 + 11) · 2 = 24, (24 + 11) · 3 = 105
  CHECK(values(stack.run(x, blocks(2))) == std::vector<float>{105, 111});
  CHECK(ten->left == std::vector<float>{24, 105});
}

TEST_CASE("Each row of a batch goes along with its own adapter") {
  graft::BasicStackSite<float> stack("blocks");
  const auto one = std::make_shared<Adds>(1.0F);
  stack.adapters() = {{"one", one}, {"runs", std::make_shared<Runs>()}};
  auto context = std::make_shared<graft::ForwardContext>();
  context->batch = 3;
  context->row_adapters = {"one", "__base__", "one"};
  Tape tape({.gradients = false});
  tape.set_context(context);
  const auto x = tape.constant(Tensor::from({1, 2, 3}, {3, 1}));
  CHECK(values(stack.enter(0, x)) == std::vector<float>{2, 2, 4});
  CHECK(values(stack.finish(x)) == std::vector<float>{101, 2, 103});
  stack.leave(0, x);
  CHECK(one->left == std::vector<float>{1});
  context->row_adapters = {"one", "__base__", "runs"};
  // One: (2 · 2 + 1) · 3; none: 2 · 2 · 3; the last block of two: 3 · 3.
  CHECK(values(stack.run(x, blocks(2, 3))) == std::vector<float>{15, 12, 9});
}

TEST_CASE("Of adapters that run the blocks the last one does, and beside others none may") {
  graft::BasicStackSite<float> stack("blocks");
  stack.adapters() = {{"runs", std::make_shared<Runs>()},
                      {"drops", std::make_shared<Runs>(1)},
                      {"one", std::make_shared<Adds>(1.0F)}};
  Tape tape({.gradients = false});
  const auto x = tape.constant(Tensor::from({1, 2, 3, 4}, {4, 1}));
  CHECK(stack.runs_blocks());
  stack.activate({"drops", "runs"});
  CHECK(values(stack.run(x, blocks(2))) == std::vector<float>{3, 6, 9, 12});
  stack.activate({"runs", "drops"});
  CHECK(values(stack.run(x, blocks(2))) == std::vector<float>{3, 6, 9});
  stack.activate({"runs", "one"});
  CHECK_THROWS_WITH(stack.run(x, blocks(2)), Catch::Contains("cannot be active together"));
  auto context = std::make_shared<graft::ForwardContext>();
  context->batch = 2;
  context->row_adapters = {"runs", "drops"};
  tape.set_context(context);
  CHECK_THROWS_WITH(stack.run(x, blocks(2, 2)), Catch::Contains("1 of 2 tokens"));
}
