#include "graft/interop/xtensor.hpp"

#include <catch2/catch.hpp>
#include <xtensor/xarray.hpp>
#include <xtensor/xnorm.hpp>
#include <xtensor/xrandom.hpp>
#include <xtensor/xview.hpp>

#include "graft/adapters/low_rank/lora.hpp"
#include "graft/autograd/ops/loss.hpp"
#include "graft/optim/adamw.hpp"

namespace {

using Catch::Contains;
using graft::Index;
namespace interop = graft::interop;
using Matrix = xt::xtensor<float, 2>;

template <class E>
concept HasLayer = requires(E&& e) { interop::out_by_in(std::forward<E>(e)); };
template <class E>
concept HasTensor = requires(E&& e) { interop::tensor(std::forward<E>(e)); };

/// Largest difference between what a layer gives and Σ_i x(r, i) w(o, i).
template <class Layer>
float difference(const Layer& layer, const Matrix& w) {
  const auto out = static_cast<Index>(w.shape(0)), in = static_cast<Index>(w.shape(1));
  const Matrix x = xt::random::randn<float>({3, static_cast<int>(in)});
  std::vector<float> y(static_cast<std::size_t>(3 * out));
  layer.forward({x.data(), 3, in}, {y.data(), 3, out});
  float most = 0;
  for (Index r = 0; r < 3; ++r)
    for (Index o = 0; o < out; ++o) {
      float sum = 0;
      for (Index i = 0; i < in; ++i) sum += x(r, i) * w(o, i);
      most = std::max(most, std::abs(sum - y[static_cast<std::size_t>(r * out + o)]));
    }
  return most;
}

}  // namespace

TEST_CASE("Containers and views of xtensor become layers without a copy") {
  const Matrix w = xt::random::randn<float>({5, 8});
  const auto layer = interop::out_by_in(w);
  CHECK(layer.weight().data() == w.data());
  CHECK(layer.in_features() == 8);
  CHECK(difference(layer, w) < 1e-5F);

  const xt::xtensor<float, 2, xt::layout_type::column_major> columns = w;
  CHECK(interop::out_by_in(columns).weight().data() == columns.data());
  CHECK(difference(interop::out_by_in(columns), w) < 1e-5F);

  const xt::xarray<float> array = w;
  CHECK(difference(interop::out_by_in(array), w) < 1e-5F);
  const Matrix turned = xt::transpose(w);
  CHECK(difference(interop::in_by_out(turned), w) < 1e-5F);

  xt::xtensor<float, 2> large = xt::zeros<float>({9, 12});
  auto part = xt::view(large, xt::range(2, 7), xt::range(3, 11));
  part = w;
  const auto viewed = interop::out_by_in(part);
  CHECK(viewed.weight().data() == &large(2, 3));
  CHECK(difference(viewed, w) < 1e-5F);
}

TEST_CASE("Expressions do not compile, other axes and strides are refused") {
  static_assert(HasLayer<const Matrix&>);
  static_assert(!HasLayer<Matrix>);
  static_assert(HasTensor<const Matrix&> && !HasTensor<Matrix>);
  static_assert(!HasLayer<decltype(2.0F * std::declval<const Matrix&>())>);
  static_assert(!HasLayer<const xt::xtensor<int, 2>&>);
  const xt::xarray<float> cube = xt::zeros<float>({2, 3, 4});
  CHECK_THROWS_WITH(interop::out_by_in(cube), Contains("3 axes"));
  const Matrix w = xt::zeros<float>({6, 8});
  const auto apart = xt::view(w, xt::all(), xt::range(0, 8, 2));
  CHECK_THROWS_WITH(interop::out_by_in(apart), Contains("strides 8 and 2"));
  CHECK_THROWS_WITH(interop::tensor(xt::view(w, xt::all(), xt::range(0, 4))),
                    Contains("axis 0 has a stride of 8, expected 4"));
}

TEST_CASE("Tensors go to and from xtensor") {
  const xt::xtensor<double, 3> x = xt::random::randn<double>({2, 3, 4});
  const auto t = interop::tensor(x);
  CHECK(t.data() == x.data());
  CHECK(t.shape() == graft::Shape{2, 3, 4});
  const auto doubled = interop::copy(2.0 * x);
  CHECK(doubled[23] == 2 * x(1, 2, 3));
  const xt::xtensor<double, 3, xt::layout_type::column_major> columns = x;
  CHECK(interop::copy(columns)[5] == x(0, 1, 1));
  CHECK(interop::xtensor(doubled).data() == doubled.data());
  const xt::xtensor<double, 3> back = interop::xtensor(doubled);
  CHECK(back == 2.0 * x);
}

TEST_CASE("A matrix of xtensor is wrapped, trained and merged back") {
  const Matrix w = xt::random::randn<float>({6, 9});
  const Matrix u = xt::random::randn<float>({6, 1}), v = xt::random::randn<float>({1, 9});
  const Matrix wanted = w + 0.3F * u * v;
  const Matrix x = xt::random::randn<float>({64, 9});
  const auto target = interop::out_by_in(wanted), frozen = interop::out_by_in(w);
  graft::Adapted layer(frozen, graft::LoRA({.rank = 2, .alpha = 2}, frozen));
  graft::AdamW optimizer(layer.parameters(), {.learning_rate = 3e-2});
  for (int step = 0; step < 400; ++step) {
    graft::Tape tape;
    const auto input = tape.constant(interop::tensor(x));
    tape.backward(graft::mse(layer(input), graft::linear(target, input)));
    optimizer.step();
    optimizer.zero_grad();
  }
  const auto merged_layer = layer.merge();
  const Matrix merged = interop::xtensor(merged_layer.dense_weight());
  CHECK(xt::norm_l2(merged - wanted)() < 0.02F * xt::norm_l2(w - wanted)());
}
