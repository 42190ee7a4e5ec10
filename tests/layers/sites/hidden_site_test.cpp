#include "graft/layers/sites/hidden_site.hpp"

#include <catch2/catch.hpp>

#include "graft/autograd/ops/elementwise.hpp"

using graft::Tape;
using graft::Tensor;
using graft::Var;

namespace {

/// factor · output + input (+ 10 residual).
struct Mix final : graft::HiddenAdapterInterface<float> {
  explicit Mix(float f) : factor(f) {}
  Var apply(const Var& input, const Var& output, const Var& residual) const override {
    const auto y = add(scale(output, factor), input);
    return residual ? add(y, scale(residual, 10)) : y;
  }
  float factor;
};
std::vector<float> values(const Var& x) { return {x.value().begin(), x.value().end()}; }

}  // namespace

TEST_CASE("Adapters at the end of a sublayer run in their order, each with input and residual") {
  graft::HiddenSite site("mlp", 1, graft::HiddenRole::feed_forward, "down_proj");
  site.adapters() = {{"two", std::make_shared<Mix>(2.0F)}, {"three", std::make_shared<Mix>(3.0F)}};
  Tape tape({.gradients = false});
  const auto in = tape.constant(Tensor::from({1, 2}, {2, 1})),
             out = tape.constant(Tensor::from({5, 6}, {2, 1})),
             residual = tape.constant(Tensor::from({7, 8}, {2, 1}));
  CHECK(values(site(in, out)) == std::vector<float>{5, 6});
  site.activate({"two", "three"});
  CHECK(values(site(in, out)) == std::vector<float>{34, 44});              // 3 (2 · 5 + 1) + 1
  CHECK(values(site(in, out, residual)) == std::vector<float>{314, 364});  // 3 (11 + 70) + 1 + 70
  auto context = std::make_shared<graft::ForwardContext>();
  context->only = "two";
  tape.set_context(context);
  CHECK(values(site(in, out)) == std::vector<float>{11, 14});
}

TEST_CASE("Each row of a batch ends a sublayer with its own adapter") {
  graft::HiddenSite site("mlp", 1, graft::HiddenRole::block);
  site.adapters() = {{"two", std::make_shared<Mix>(2.0F)}, {"three", std::make_shared<Mix>(3.0F)}};
  site.activate({"two"});
  auto context = std::make_shared<graft::ForwardContext>();
  context->batch = 3;
  context->row_adapters = {"three", "__base__", "two"};
  Tape tape({.gradients = false});
  tape.set_context(context);
  const auto in = tape.constant(Tensor::from({1, 2, 3}, {3, 1})),
             out = tape.constant(Tensor::from({5, 6, 7}, {3, 1}));
  CHECK(values(site(in, out)) == std::vector<float>{16, 6, 17});
  CHECK(values(site(in, out, in)) == std::vector<float>{26, 6, 47});
}
