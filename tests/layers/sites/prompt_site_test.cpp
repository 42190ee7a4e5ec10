#include "graft/layers/sites/prompt_site.hpp"

#include <algorithm>
#include <catch2/catch.hpp>

#include "graft/adapters/part.hpp"

using graft::Index;
using graft::Tape;
using graft::Tensor;
using graft::Var;

namespace {

/// `count` virtual tokens of ones.
struct Ones final : graft::PromptPart<float> {
  explicit Ones(Index tokens) : count(tokens) {}
  Index virtual_tokens() const override { return count; }
  Var prompt(Tape& tape, Index batch, const graft::ForwardContext&) const override {
    return tape.constant(Tensor::ones({batch, count, 3}));
  }
  std::vector<graft::AdapterTensor<float>> tensors() const override { return {}; }
  Index count;
};

}  // namespace

TEST_CASE("A prompt site puts the virtual tokens in front of every row") {
  graft::PromptSite site("embed", 3);
  site.adapters().push_back({"p", std::make_shared<Ones>(2)});
  Tape tape({.gradients = false});
  const auto x = tape.constant(Tensor::zeros({2, 4, 3}));
  CHECK(site(x, {}).value().shape() == x.shape());
  site.activate({"p"});
  const auto y = site(x, {}).value();
  CHECK(y.shape() == graft::Shape{2, 6, 3});
  CHECK(y[0] == 1);
  CHECK(y[2 * 3] == 0);
  CHECK(y[6 * 3] == 1);
}

TEST_CASE("Rows with fewer virtual tokens than others are filled up in front") {
  graft::PromptSite site("embed", 3, 1);  // behind a class token
  site.adapters().push_back({"two", std::make_shared<Ones>(2)});
  site.adapters().push_back({"one", std::make_shared<Ones>(1)});
  auto context = std::make_shared<graft::ForwardContext>();
  context->batch = 3;
  context->row_adapters = {"one", "__base__", "two"};
  CHECK(site.virtual_tokens(context->row_adapters, 3) == std::vector<Index>{1, 0, 2});
  Tape tape({.gradients = false});
  tape.set_context(context);
  const auto y = site(tape.constant(Tensor::full({3, 2, 3}, 7)), *context).value();
  REQUIRE(y.shape() == graft::Shape{3, 4, 3});
  std::vector<float> first;
  for (Index token = 0; token < 12; ++token) first.push_back(y[3 * token]);
  CHECK(first == std::vector<float>{7, 0, 1, 7, 7, 0, 0, 7, 7, 1, 1, 7});
}
