#include "graft/layers/sites/apply_each.hpp"

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>

#include "graft/layers/quantized_linear.hpp"
#include "layers/encoded.hpp"
#include "layers/sites/support.hpp"

using graft::Index;
using graft::LinearSite;
using graft::QuantizedLinear;
using graft::Tape;
using graft::Tensor;
using graft::Var;
using graft::quant::Format;
using layer_tests::encode;
using layer_tests::Encoded;

namespace {

using Sites = std::array<const LinearSite*, 2>;

constexpr Index kIn = 64;

/// A site whose layer rounds a few rows to 8 bits, and what it reads.
struct Rounding {
  explicit Rounding(Index out) : weight(encode(Format::q4_1, out, kIn)) {
    site = LinearSite("site", QuantizedLinear(Format::q4_1, weight.blocks.data(), out, kIn)
                                  .with_activations(graft::Activations::int8));
  }
  Encoded weight;
  LinearSite site;
};

/// A layer that has no weight to give to a kernel: y = 2 x, cut off.
struct Twice {
  using Scalar = float;
  Index out = 0;
  Index in_features() const { return kIn; }
  Index out_features() const { return out; }
  void forward(graft::MatrixView<const float> x, graft::MatrixView<float> y) const {
    for (Index r = 0; r < x.rows(); ++r)
      for (Index o = 0; o < out; ++o) y(r, o) = 2 * x(r, o);
  }
  void backward_input(graft::MatrixView<const float> dy, graft::MatrixView<float> dx) const {
    for (Index r = 0; r < dy.rows(); ++r)
      for (Index o = 0; o < out; ++o) dx(r, o) += 2 * dy(r, o);
  }
};

void check_as_alone(const Var& x, const LinearSite& first, const LinearSite& second) {
  const auto together = apply_each(x, Sites{&first, &second});
  for (std::size_t i = 0; i < 2; ++i) {
    const auto alone = (i == 0 ? first : second)(x).value();
    REQUIRE(together[i].shape() == alone.shape());
    CHECK(std::equal(alone.begin(), alone.end(), together[i].value().begin()));
  }
}

}  // namespace

TEST_CASE("Several layers with one input give together what each gives alone") {
  const Index in = 64, rows = GENERATE(1, 3, 11);
  const auto x = checks::random_tensor<float>({rows, in}, 1);
  std::vector<Encoded> blocks;
  std::vector<graft::BasicLinearSite<float>> sites;
  for (const Index out : {33, 8, 700}) {
    blocks.push_back(encode(out == 8 ? Format::q8_0 : Format::q4_1, out, in));
    sites.emplace_back(
        "site",
        QuantizedLinear(out == 8 ? Format::q8_0 : Format::q4_1, blocks.back().blocks.data(), out,
                        in, out == 33 ? checks::random_tensor<float>({out}, 2) : graft::Tensor{})
            .with_activations(graft::Activations::int8));
  }
  graft::Tape tape({.gradients = false});
  const auto vx = tape.constant(x);
  const auto together = apply_each(
      vx, std::array<const graft::BasicLinearSite<float>*, 3>{&sites[0], &sites[1], &sites[2]});
  for (std::size_t i = 0; i < 3; ++i) {
    const auto alone = sites[i](vx).value();
    CHECK(together[i].shape() == alone.shape());
    CHECK(std::equal(alone.begin(), alone.end(), together[i].value().begin()));
  }
}

TEST_CASE("Layers of which one is adapted run apart, with its adapter") {
  Rounding first(20), second(30);
  site_tests::attach(first.site, "a", site_tests::Affine{2, 1});
  Tape tape({.gradients = false});
  const auto x = tape.constant(checks::random_tensor<float>({3, kIn}, 1));
  const auto frozen = apply_each(x, Sites{&first.site, &second.site});
  first.site.activate({"a"});
  check_as_alone(x, first.site, second.site);
  check_as_alone(x, second.site, first.site);
  const auto adapted = apply_each(x, Sites{&first.site, &second.site});
  CHECK(checks::relative_error(adapted[0].value(), frozen[0].value()) > 0.1);
}

TEST_CASE("Layers of which one has no weight in blocks run apart") {
  const Rounding first(20);
  const LinearSite second("site", Twice{30});
  const LinearSite dense("site", graft::DenseLinear(first.weight.decoded));
  Tape tape({.gradients = false});
  const auto x = tape.constant(checks::random_tensor<float>({3, kIn}, 1));
  check_as_alone(x, first.site, second);
  check_as_alone(x, second, first.site);
  check_as_alone(x, first.site, dense);
}

TEST_CASE("An input that learns gets its gradient through every layer") {
  const Rounding first(20), second(20);
  Tape tape;
  const auto x = tape.leaf(checks::random_tensor<float>({3, kIn}, 1));
  const auto y = apply_each(x, Sites{&first.site, &second.site});
  tape.backward(sum(add(y[0], scale(y[1], 2))));
  REQUIRE(x.grad());
  // Both weights are the same: three times the sum of its rows.
  const auto& w = first.weight.decoded;
  double worst = 0;
  for (Index i = 0; i < kIn; ++i) {
    double sum = 0;
    for (Index o = 0; o < w.rows(); ++o) sum += 3 * double{w(o, i)};
    worst = std::max(worst, std::abs(double{x.grad()(2, i)} - sum));
  }
  CHECK(worst < 1e-5);
}

TEST_CASE("Several layers refuse an input of another width as one does") {
  const Rounding first(20), second(30);
  Tape tape({.gradients = false});
  const auto x = tape.constant(Tensor::zeros({3, kIn - 32}));
  CHECK_THROWS_AS(apply_each(x, Sites{&first.site, &second.site}), graft::ShapeError);
}
