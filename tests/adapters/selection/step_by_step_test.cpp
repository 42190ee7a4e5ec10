#include <catch2/catch.hpp>
#include <cmath>
#include <set>

#include "adapters/method_checks.hpp"
#include "graft/adapters/selection/id3.hpp"
#include "graft/adapters/selection/sift.hpp"

using graft::BasicTensor;
using graft::Index;

namespace {

/// A layer with the parts and the procedure of a method, trained on one output.
template <class Method>
struct Training {
  using T = typename Method::Scalar;
  graft::BasicDenseLinear<T> layer = checks::random_layer<T>(6, 9, 1);
  graft::StandaloneInit<T> init{1};
  std::shared_ptr<graft::LinearPart<T>> part;
  std::unique_ptr<graft::Procedure<T>> procedure;

  explicit Training(const typename Method::Config& config)
      : part(Method::linear(config, checks::site_of(layer), init.context())),
        procedure(Method::procedure(config, {{"proj", part}})) {}
  const graft::BasicSparseDelta<T>& delta() const {
    return *graft::method_of<graft::BasicSparseDelta<T>>(part.get());
  }
  void step(Index number, Index total) {
    const graft::StepInfo info{number, total, 0.01};
    procedure->before_step(info);
    graft::BasicTape<T> tape;
    const graft::BasicAnyLinear<T> base{layer};
    const auto x = tape.leaf(checks::random_tensor<T>({5, 9}, static_cast<unsigned>(number)));
    const auto y = part->apply(graft::BasicLinearView<T>(base, {}), x);
    tape.backward(sum(mul(y, y)));
    procedure->after_backward(info);
    // The optimiser of the run must find nothing to do.
    CHECK_FALSE(delta().values().grad());
  }
};

}  // namespace

TEST_CASE("ID3 spends its budget step by step and never takes a place back") {
  CHECK(graft::ID3Config::released(17, 1, 5) == 4);
  CHECK(graft::ID3Config::released(17, 2, 5) == 4);
  CHECK(graft::ID3Config::released(17, 3, 5) == 3);
  CHECK(graft::ID3Config::released(17, 6, 5) == 0);
  graft::ID3Config config;
  config.budget = 17;
  Training<graft::ID3Method<double>> run(config);
  CHECK(run.delta().places().empty());
  graft::selection::Places before;
  for (Index t = 1; t <= 5; ++t) {
    run.step(t, 5);
    const auto& now = run.delta().places();
    CHECK(now.size() == before.size() + (t <= 2 ? 4 : 3));
    CHECK(std::equal(before.begin(), before.end(), now.begin()));
    before = now;
  }
  CHECK(std::set<std::int64_t>(before.begin(), before.end()).size() == 17);
  for (const double v : run.delta().values().value()) CHECK(v != 0);
}

TEST_CASE("the score of ID3 without exponent is the gradient alone") {
  graft::ID3Config config;
  config.exp = 0;
  CHECK(graft::selection::id3_score(3.0, -2.0, config) == 2.0);
  config.exp = 1;
  CHECK(graft::selection::id3_score(-3.0, 2.0, config) == 0.5);
}

TEST_CASE("PaFi chooses the smallest weights of all matrices") {
  const std::vector<graft::Tensor> weights{graft::Tensor::from({3, -0.1F, 2, 1}, {2, 2}),
                                           graft::Tensor::from({0.2F, -5}, {1, 2})};
  const auto places = graft::selection::smallest_weights(weights, 2);
  CHECK(places[0] == graft::selection::Places{1});
  CHECK(places[1] == graft::selection::Places{0});
}

TEST_CASE("SIFT only chooses in its first step, then moves every few gradients") {
  graft::SIFTConfig config;
  config.sparse_rate = 0.1;
  config.gradient_accumulation_steps = 2;
  Training<graft::SIFTMethod<double>> run(config);
  run.step(1, 7);
  const auto places = run.delta().places();
  REQUIRE(places.size() == 6);  // ⌊5.4⌋ + 1
  const auto moved = [&] {
    double sum = 0;
    for (const double v : run.delta().values().value()) sum += std::abs(v);
    return sum;
  };
  CHECK(moved() == 0);
  run.step(2, 7);
  CHECK(moved() == 0);
  run.step(3, 7);
  // Adam's first step has the size of the learning rate.
  CHECK(moved() == Approx(0.06).epsilon(1e-4));
  run.step(4, 7);
  CHECK(run.delta().places() == places);
  const auto state = run.procedure->state();
  CHECK(state.at("proj.steps") == std::vector<double>{1, 1});
  CHECK(state.at("proj.m1").size() == 6);
}

TEST_CASE("ID3 and SIFT refuse numbers out of range") {
  graft::ID3Config id3;
  id3.budget = -1;
  CHECK_THROWS_WITH(id3.validate(), Catch::Contains("budget -1"));
  graft::SIFTConfig sift;
  sift.sparse_rate = 2;
  CHECK_THROWS_WITH(sift.validate(), Catch::Contains("sparse_rate 2"));
}
