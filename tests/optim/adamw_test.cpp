#include "graft/optim/adamw.hpp"

#include <catch2/catch.hpp>

namespace {

/// Six steps with given gradients; torch.optim.AdamW gave the expected values below for them.
template <class T>
graft::BasicTensor<T> six_steps() {
  const graft::BasicParameter<T> p(
      graft::BasicTensor<T>::from(std::vector<double>{0.5, -1.25, 2.0, 0.0, -0.375}, {5}));
  graft::BasicAdamW<T> optimizer(
      {p}, {.learning_rate = 0.03, .beta1 = 0.8, .beta2 = 0.95, .eps = 1e-6, .weight_decay = 0.1});
  for (int t = 1; t <= 6; ++t) {
    p.mutable_grad() = graft::BasicTensor<T>::from(
        std::vector<double>{0.3 * t, -0.7, 0.01 * t * t, -2.0 / t, 0.0}, {5});
    optimizer.step();
    optimizer.zero_grad();
  }
  return p.value();
}

constexpr double kExpected[] = {0.31291884257461605, -1.049012943873974, 1.7965039064080965,
                                0.147781509800059, -0.36830042295507853};

}  // namespace

TEST_CASE("AdamW follows torch's to rounding in double") {
  const auto p = six_steps<double>();
  for (graft::Index i = 0; i < 5; ++i) CHECK(p[i] == Approx(kExpected[i]).epsilon(1e-13));
}

TEST_CASE("AdamW follows torch's to rounding in float") {
  const auto p = six_steps<float>();
  for (graft::Index i = 0; i < 5; ++i) CHECK(p[i] == Approx(kExpected[i]).epsilon(6e-7));
}

TEST_CASE("AdamW refuses settings out of range") {
  const graft::Parameter p(graft::Tensor::zeros({2}));
  CHECK_THROWS_AS(graft::AdamW({p}, {.beta1 = 1}), graft::ValueError);
  CHECK_THROWS_AS(graft::AdamW({p}, {.eps = -1}), graft::ValueError);
  CHECK_THROWS_AS(graft::AdamW({p}, {.learning_rate = -1}), graft::ValueError);
}
