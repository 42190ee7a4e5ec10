// Optimisers that know the factors of a low-rank update.
#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"
#include "graft/adapters/initial_values.hpp"
#include "graft/optim/adamw.hpp"
#include "graft/optim/lora_fa.hpp"
#include "graft/optim/lora_plus.hpp"
#include "graft/optim/riemannian.hpp"

using graft::BasicParameter;
using graft::BasicTensor;
using graft::Index;
using graft::LowRankTerm;

namespace {

LowRankTerm<double> pair_of(Index r, Index in, Index out) {
  LowRankTerm<double> pair{BasicParameter<double>(checks::random_tensor<double>({r, in}, 1)),
                           BasicParameter<double>(checks::random_tensor<double>({out, r}, 2)), 0.5};
  pair.a.mutable_grad() = checks::random_tensor<double>({r, in}, 3);
  pair.b.mutable_grad() = checks::random_tensor<double>({out, r}, 4);
  return pair;
}

}  // namespace

TEST_CASE("LoRA+ gives B and vectors a larger rate and biases and norms no decay") {
  const auto p = [](graft::Shape shape) { return graft::Parameter(graft::Tensor::zeros(shape)); };
  const std::vector<graft::NamedParameter> all{{"x.lora_A.weight", p({2, 3})},
                                               {"x.lora_B.weight", p({4, 2})},
                                               {"x.lora_B.bias", p({4})},
                                               {"x.lora_magnitude_vector", p({4})},
                                               {"e.lora_embedding_B", p({4, 2})},
                                               {"h.LayerNorm.weight", p({4})},
                                               {"ln_1.weight", p({4})}};
  const auto groups = graft::lora_plus_groups(
      all,
      {.learning_rate = 1e-2, .ratio = 4, .embedding_learning_rate = 1e-4, .weight_decay = 0.1});
  REQUIRE(groups.size() == 4);
  CHECK(groups[0].parameters == std::vector{all[0].parameter});
  CHECK(groups[1].parameters == std::vector{all[4].parameter});
  CHECK(groups[1].learning_rate_ratio == Approx(1e-2));
  CHECK(groups[2].parameters == std::vector{all[1].parameter, all[3].parameter});
  CHECK(groups[2].learning_rate_ratio == 4);
  CHECK(groups[3].parameters == std::vector{all[2].parameter, all[5].parameter, all[6].parameter});
  CHECK(*groups[3].weight_decay == 0);
}

TEST_CASE("the Riemannian step of the product does not depend on how it is split") {
  // B A stays the same under A → M A, B → B M⁻¹; with no damping so does its first-order change.
  const auto change = [](double m) {
    auto pair = pair_of(2, 5, 4);
    for (double& v : pair.a.value()) v *= m;
    for (double& v : pair.b.value()) v /= m;
    for (double& v : pair.a.mutable_grad()) v /= m;
    for (double& v : pair.b.mutable_grad()) v *= m;
    graft::BasicRiemannianPreconditioner<double>({pair}, 0).apply();
    auto d = graft::detail::product(pair.b.grad(), pair.a.value());
    const auto rest = graft::detail::product(pair.b.value(), pair.a.grad());
    for (Index i = 0; i < d.size(); ++i) d[i] += rest[i];
    return d;
  };
  CHECK(checks::relative_error(change(3), change(1)) < 1e-11);
}

TEST_CASE("LoRA-FA freezes A and projects the gradient of B") {
  const auto pair = pair_of(3, 6, 4);
  const auto a = pair.a.value().clone(), b = pair.b.value().clone(), g = pair.b.grad().clone();
  graft::BasicLoRAFA<double> optimizer({pair}, {.learning_rate = 0.1, .eps = 1, .damping = 0});
  optimizer.step();
  CHECK_FALSE(pair.a.trainable());
  CHECK(checks::relative_error(pair.a.value(), a) == 0);
  // First step: m / (√v + ε), both corrected for their bias: √0.001 / 0.1 · 0.1 g̃ / (√0.001 |g̃| +
  // 1).
  auto gram = graft::detail::product(a, a, 1.0, false, true);
  const auto projected = graft::detail::product(g, graft::inverse(gram), 4.0);
  for (Index i = 0; i < b.size(); ++i) {
    const double root = std::sqrt(0.001);
    const double moved =
        0.1 * root / 0.1 * (0.1 * projected[i]) / (root * std::abs(projected[i]) + 1);
    CHECK(pair.b.value()[i] == Approx(b[i] - moved));
  }
}
