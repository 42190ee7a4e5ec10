#include "graft/layers/sites.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"
#include "graft/adapters/part.hpp"

using graft::Index;
using graft::Tape;
using graft::Tensor;
using graft::Var;

namespace {

/// y = base(factor · x) + shift.
struct Affine {
  using Scalar = float;
  float factor, shift;
  template <graft::Linear L>
  Var apply(const L& base, const Var& x) const {
    return add_scalar(linear(base, scale(x, factor)), shift);
  }
  std::vector<graft::AdapterTensor<float>> tensors() const { return {}; }
};
/// Moves the first element of the input behind the others; several do it one after the other.
struct Rotate {
  using Scalar = float;
  static constexpr bool kInputInOrder = true;
  float first;
  template <graft::Linear L>
  Var apply(const L& base, const Var& x) const {
    const auto head = slice(x, -1, 0, 1);
    return linear(base, concat_along(-1, std::vector<Var>{slice(x, -1, 1, x.cols() - 1),
                                                          scale(head, first)}));
  }
  std::vector<graft::AdapterTensor<float>> tensors() const { return {}; }
};

graft::LinearSite identity_site(Index width) {
  return {"proj", graft::DenseLinear(Tensor::identity(width))};
}
std::vector<float> run(const graft::LinearSite& site, std::initializer_list<float> x,
                       std::shared_ptr<const void> context = nullptr) {
  Tape tape({.gradients = false});
  tape.set_context(std::move(context));
  const auto rows = static_cast<Index>(x.size()) / site.in_features();
  const auto y = site(tape.constant(Tensor::from(x, {rows, site.in_features()}))).value();
  return {y.begin(), y.end()};
}
template <class Method>
void attach(graft::LinearSite& site, const std::string& name, Method method) {
  site.adapters().push_back({name, graft::linear_part(method)});
}

}  // namespace

TEST_CASE("A site runs the active adapters only, each around those before it") {
  auto site = identity_site(2);
  attach(site, "a", Affine{2, 1});
  attach(site, "b", Affine{3, 10});
  CHECK(run(site, {1, 2}) == std::vector<float>{1, 2});
  site.activate({"a"});
  CHECK(run(site, {1, 2}) == std::vector<float>{3, 5});
  site.activate({"a", "b"});  // b(a(base)): 2 · (3 x) + 1 + 10
  CHECK(run(site, {1, 2}) == std::vector<float>{17, 23});
  site.activate({"b", "a"});
  CHECK(run(site, {1, 2}) == std::vector<float>{17, 23});
  site.activate({});
  CHECK(run(site, {1, 2}) == std::vector<float>{1, 2});
}

TEST_CASE("Adapters that say so change the input in the order of their names") {
  auto site = identity_site(3);
  attach(site, "a", Rotate{10});
  attach(site, "b", Rotate{100});
  attach(site, "c", Affine{1, 0.5F});
  site.activate({"a", "b"});  // a moves and scales the 1, then b the 2
  CHECK(run(site, {1, 2, 3}) == std::vector<float>{3, 10, 200});
  site.activate({"b", "a"});
  CHECK(run(site, {1, 2, 3}) == std::vector<float>{3, 100, 20});
  site.activate({"a", "b", "c"});
  CHECK(run(site, {1, 2, 3}) == std::vector<float>{3.5F, 10.5F, 200.5F});
  site.activate({"a", "c", "b"});  // c between them: b wraps it and sees the input first
  CHECK(run(site, {1, 2, 3}) == std::vector<float>{3.5F, 100.5F, 20.5F});
}

TEST_CASE("Each row of a batch may name its adapter") {
  auto site = identity_site(2);
  attach(site, "a", Affine{2, 0});
  attach(site, "b", Affine{-1, 0});
  auto context = std::make_shared<graft::ForwardContext>();
  context->batch = 4;
  context->row_adapters = {"b", "a", "__base__", "b"};
  CHECK(run(site, {1, 2, 3, 4, 5, 6, 7, 8}, context) ==
        std::vector<float>{-1, -2, 6, 8, 5, 6, -7, -8});
  context = std::make_shared<graft::ForwardContext>(*context);
  context->row_adapters = {"a", "b"};
  CHECK_THROWS_AS(run(site, {1, 2, 3, 4, 5, 6, 7, 8}, context), graft::ShapeError);
}

TEST_CASE("A trained bias takes the place of the frozen one") {
  graft::LinearSite site("proj",
                         graft::DenseLinear(Tensor::identity(2), Tensor::from({1, 2}, {2})));
  CHECK(run(site, {0, 0}) == std::vector<float>{1, 2});
  site.biases.active = graft::Parameter(Tensor::from({5, 7}, {2}));
  CHECK(run(site, {1, 1}) == std::vector<float>{6, 8});
  Tape tape;
  tape.backward(sum(site(tape.constant(Tensor::from({0, 0, 0, 0}, {2, 2})))));
  CHECK(site.biases.active.grad()[0] == 2);
}

TEST_CASE("A norm site keeps to its norm, RMSNorm with an offset or LayerNorm") {
  graft::BasicNorm<double> rms;
  rms.weight = graft::BasicTensor<double>::from({0.5, -0.5}, {2});
  rms.eps = 0;
  rms.weight_offset = 1;
  const graft::BasicNormSite<double> site("norm", rms);
  graft::BasicTape<double> tape({.gradients = false});
  const auto x = tape.constant(graft::BasicTensor<double>::from({3, 4}, {1, 2}));
  const auto y = site(x).value();
  CHECK(y[0] == Approx(3 / std::sqrt(12.5) * 1.5));
  CHECK(y[1] == Approx(4 / std::sqrt(12.5) * 0.5));
  graft::BasicNorm<double> plain;
  plain.rms = false;
  plain.eps = 0;
  plain.bias = graft::BasicTensor<double>::from({1, 2}, {2});
  plain.weight = graft::BasicTensor<double>::from({2, 3}, {2});
  const auto z = graft::BasicNormSite<double>("norm", plain)(x).value();
  CHECK(z[0] == Approx(-1));
  CHECK(z[1] == Approx(5));
}

TEST_CASE("A prompt site puts the virtual tokens in front of every row") {
  struct Ones final : graft::PromptPart<float> {
    Index virtual_tokens() const override { return 2; }
    Var prompt(Tape& tape, Index batch, const graft::ForwardContext&) const override {
      auto t = Tensor::empty({batch, 2, 3});
      std::fill(t.begin(), t.end(), 1.0F);
      return tape.constant(t);
    }
    std::vector<graft::AdapterTensor<float>> tensors() const override { return {}; }
  };
  graft::PromptSite site("embed", 3);
  site.adapters().push_back({"p", std::make_shared<Ones>()});
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
