#include "graft/layers/sites/attention_site.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicTape;
using graft::BasicTensor;
using graft::BasicVar;
using graft::Index;

namespace {

using Call = graft::AttentionCall<double>;
using Site = graft::BasicAttentionSite<double>;

/// Multiplies values, the result and what the output projection gives; the keys of `keys` tokens.
struct Factors final : graft::AttentionAdapterInterface<double> {
  explicit Factors(double f, Index k = 0) : factor(f), keys(k) {}
  void before(Call& call) const override { call.v = scale(call.v, factor); }
  BasicVar<double> after(const Call&, BasicVar<double> out) const override {
    return scale(out, factor);
  }
  BasicVar<double> projected(const Call&, BasicVar<double> out) const override {
    return add_scalar(out, factor);
  }
  Index virtual_keys() const override { return keys; }
  double factor;
  Index keys;
};

Call call_of(BasicTape<double>& tape, Index batch) {
  const auto x = [&](unsigned seed) {
    return tape.constant(checks::random_tensor<double>({2 * batch, 4}, seed));
  };
  Call call;
  call.q = x(1);
  call.k = x(2);
  call.v = x(3);
  call.options.batch = batch;
  call.options.heads = call.options.kv_heads = 2;
  return call;
}

}  // namespace

TEST_CASE("An attention runs its adapters before, after and behind the output projection") {
  Site site("attn", 0, 2, 2, 2);
  site.adapters() = {{"two", std::make_shared<Factors>(2.0, 5)},
                     {"three", std::make_shared<Factors>(3.0, 7)}};
  const graft::BasicLinearSite<double> output(
      "o_proj", graft::BasicDenseLinear<double>(BasicTensor<double>::identity(4)));
  BasicTape<double> tape({.gradients = false});
  auto call = call_of(tape, 2);
  const auto frozen = site(call).value();
  CHECK(site.virtual_keys() == 0);
  site.activate({"two", "three"});
  CHECK(site.virtual_keys() == 12);
  const auto y = site(call).value();
  call.output = &output;
  const auto projected = site(call).value();
  for (Index i = 0; i < y.size(); ++i) {
    CHECK(y[i] == Approx(36 * frozen[i]));
    CHECK(projected[i] == Approx(y[i] + 5));
  }
}

TEST_CASE("Each row of a batch attends with its own adapter") {
  Site site("attn", 0, 2, 2, 2);
  site.adapters() = {{"two", std::make_shared<Factors>(2.0, 5)},
                     {"three", std::make_shared<Factors>(3.0)}};
  const graft::BasicLinearSite<double> output(
      "o_proj", graft::BasicDenseLinear<double>(BasicTensor<double>::identity(4)));
  BasicTape<double> tape({.gradients = false});
  auto call = call_of(tape, 3);
  // The last token of the first row is hidden.
  call.options.key_mask =
      std::make_shared<std::vector<unsigned char>>(std::vector<unsigned char>{1, 0, 1, 1, 1, 1});
  call.output = &output;
  const auto frozen = site(call).value();
  auto context = std::make_shared<graft::ForwardContext>();
  context->batch = 3;
  context->row_adapters = {"two", "__base__", "three"};
  CHECK(site.virtual_keys(context.get(), 3) == std::vector<Index>{5, 0, 0});
  tape.set_context(context);
  const auto y = site(call).value();
  REQUIRE(y.shape() == frozen.shape());
  for (Index row = 0; row < 3; ++row)
    for (Index i = 8 * row; i < 8 * row + 8; ++i)
      CHECK(y[i] == Approx(row == 0   ? 4 * frozen[i] + 2
                           : row == 1 ? frozen[i]
                                      : 9 * frozen[i] + 3));
}
