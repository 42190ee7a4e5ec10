#include "graft/adapters/spectral/soda.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicSODA;
using graft::BasicTensor;
using graft::Index;
using graft::SODA;
using graft::SODAConfig;
using graft::StiefelAdam;
using Matrix = BasicTensor<double>;

namespace {

double distance_from_orthogonal(const Matrix& q) {
  return checks::relative_error(graft::detail::product(q, q, 1.0, true),
                                Matrix::identity(q.rows()));
}

}  // namespace

TEST_CASE("SODA begins as the identity, differentiates and merges") {
  for (const auto& config :
       {SODAConfig{}, SODAConfig{.sizes = {2, 3, 2}}, SODAConfig{.sizes = {1, 12, 1}}}) {
    CHECK(checks::change_at_init<BasicSODA<double>>(config) < 1e-13);
    CHECK(checks::gradient_error<BasicSODA<double>>(config) < 1e-7);
    CHECK(checks::gradient_error<BasicSODA<double>>(config, 14) < 1e-7);
    CHECK(checks::merge_error<SODA>(config) < 1e-5);
  }
  CHECK(checks::trained<SODA>({.sizes = {2, 3, 2}}) == 4 + 9 + 4 + 10);
  CHECK(checks::change_at_init<BasicSODA<double>>({.delta_init = 1e-3}) > 1e-6);
}

TEST_CASE("SODA's rotation is the Kronecker product of its factors") {
  const graft::BasicDenseLinear<double> one(Matrix::identity(12));
  const auto method = checks::make<BasicSODA<double>>({.sizes = {2, 3, 2}}, checks::site_of(one));
  std::array<Matrix, 3> q;
  for (std::size_t i = 0; i < 3; ++i) {
    q[i] =
        checks::random_tensor<double>(method.rotations()[i].shape(), static_cast<unsigned>(i + 1));
    method.rotations()[i].assign(q[i]);
  }
  const auto w = merge_linear(one, method).dense_weight();  // Kᵀ
  for (Index r = 0; r < 12; ++r)
    for (Index c = 0; c < 12; ++c)
      CHECK(w(c, r) ==
            Approx(q[0](r / 6, c / 6) * q[1](r / 2 % 3, c / 2 % 3) * q[2](r % 2, c % 2)));
}

TEST_CASE("sizes of SODA multiply to the width") {
  CHECK(graft::soda_sizes(768) == std::array<Index, 3>{6, 8, 16});
  CHECK(graft::soda_sizes(64) == std::array<Index, 3>{4, 4, 4});
  CHECK(graft::soda_sizes(30) == std::array<Index, 3>{2, 3, 5});
  CHECK(graft::soda_sizes(13) == std::array<Index, 3>{1, 1, 13});
  CHECK_THROWS_WITH(checks::trained<SODA>({.sizes = {2, 2, 2}}), Catch::Contains("product 12"));
  CHECK_THROWS_WITH(checks::trained<SODA>({.retraction = "qr"}), Catch::Contains("qr"));
}

TEST_CASE("orthogonal Adam finds a rotation and stays on the group") {
  for (const char* retraction : {"euler", "cayley", "exp"}) {
    INFO(retraction);
    // max tr(Aᵀ Q) over rotations, A itself one.
    auto a = graft::qr(checks::random_tensor<double>({5, 5}, 1)).q;
    graft::StiefelAdamConfig config;
    config.learning_rate = 0.02;
    config.retraction = retraction;
    // Its component of the group: a start with the same determinant.
    auto q = a.clone();
    for (Index turn = 0; turn < 2; ++turn) {
      const double c = std::cos(0.8), s = std::sin(0.8);
      for (Index j = 0; j < 5; ++j) {
        const double u = q(turn, j), v = q(turn + 2, j);
        q(turn, j) = c * u - s * v;
        q(turn + 2, j) = s * u + c * v;
      }
    }
    CHECK(checks::relative_error(q, a) > 0.1);
    StiefelAdam optimizer(config);
    auto gradient = a.clone();
    for (double& g : gradient) g = -g;
    for (int step = 0; step < 400; ++step) {
      q = optimizer.step(q, gradient);
      if (step % 100 == 0) CHECK(distance_from_orthogonal(q) < 1e-13);
    }
    CHECK(checks::relative_error(q, a) < 1e-2);
  }
  StiefelAdam optimizer;
  CHECK_THROWS_AS(optimizer.step(Matrix::zeros({2, 3}), Matrix::zeros({2, 3})), graft::ShapeError);
}

TEST_CASE("the matrix exponential of a turn is its rotation") {
  auto a = Matrix::zeros({2, 2});
  a(0, 1) = -3;
  a(1, 0) = 3;
  const auto e = graft::detail::matrix_exponential(a);
  CHECK(e(0, 0) == Approx(std::cos(3.0)));
  CHECK(e(1, 0) == Approx(std::sin(3.0)));
}

TEST_CASE("SODA's procedure moves the rotations alone and goes on from a saved state") {
  const auto layer = checks::random_layer<double>(7, 12, 1);
  const auto start = [&] {
    auto method = checks::make<BasicSODA<double>>({.sizes = {2, 2, 3}, .learning_rate = 0.05},
                                                  checks::site_of(layer));
    return std::vector<graft::PlacedPart<double>>{{"proj", graft::linear_part(std::move(method))}};
  };
  const auto parts = start(), others = start();
  const SODAConfig config{.learning_rate = 0.05};
  graft::SODAProcedure<double> procedure(config, parts), other(config, others);
  const auto step = [&](graft::SODAProcedure<double>& run,
                        const std::vector<graft::PlacedPart<double>>& at, unsigned seed) {
    const auto* method = graft::method_of<BasicSODA<double>>(at[0].part.get());
    for (const auto& t : method->tensors())
      t.parameter.mutable_grad() = checks::random_tensor<double>(t.parameter.shape(), seed++);
    run.after_backward({});
    for (const auto& q : method->rotations()) CHECK_FALSE(q.grad());
    CHECK(method->tensors()[3].parameter.grad());
    run.after_step({});
    for (const auto& q : method->rotations()) CHECK(distance_from_orthogonal(q.value()) < 1e-13);
  };
  step(procedure, parts, 1);
  step(procedure, parts, 5);
  const auto tensors = parts[0].part->tensors(), same = others[0].part->tensors();
  CHECK(checks::relative_error(tensors[2].parameter.value(), Matrix::identity(3)) > 1e-3);
  for (std::size_t i = 0; i < 4; ++i)
    same[i].parameter.assign(tensors[i].parameter.value().clone());
  other.set_state(procedure.state());
  step(procedure, parts, 9);
  step(other, others, 9);
  for (std::size_t i = 0; i < 3; ++i)
    CHECK(checks::relative_error(same[i].parameter.value(), tensors[i].parameter.value()) == 0);
}
