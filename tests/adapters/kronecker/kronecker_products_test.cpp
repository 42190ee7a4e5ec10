#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"
#include "graft/adapters/kronecker/compacter.hpp"
#include "graft/adapters/kronecker/kadaptation.hpp"
#include "graft/adapters/kronecker/krona.hpp"
#include "graft/adapters/kronecker/loretta.hpp"
#include "graft/adapters/kronecker/moka.hpp"
#include "graft/adapters/kronecker/soka.hpp"

using graft::Index;

namespace {

template <class T>
struct Compacter : graft::SerialAdapter<graft::BasicCompacterModule<T>> {
  using Config = graft::CompacterConfig;
  Compacter(const Config& config, const graft::LinearSiteInfo<T>& site,
            graft::InitContext<T>& context)
      : graft::SerialAdapter<graft::BasicCompacterModule<T>>(
            graft::BasicCompacterModule<T>(config, site.out_features, site.path, context)) {}
};

}  // namespace

TEST_CASE("a Kronecker product on activations is the product that is never formed") {
  const auto x = checks::random_tensor<double>({3, 12}, 1);
  for (const auto& [a1, a2] : {std::pair<Index, Index>{2, 6}, {5, 3}, {10, 1}, {1, 12}}) {
    const auto a = checks::random_tensor<double>({a1, a2}, 2),
               b = checks::random_tensor<double>({10 / a1, 12 / a2}, 3);
    graft::BasicTape<double> tape;
    const auto y =
        graft::detail::kronecker_product(tape.constant(x), tape.constant(a), tape.constant(b))
            .value();
    auto expected = graft::BasicTensor<double>::zeros({3, 10});
    for (Index r = 0; r < 3; ++r)
      for (Index o = 0; o < 10; ++o)
        for (Index i = 0; i < 12; ++i)
          expected(r, o) += a(o / b.rows(), i / b.cols()) * b(o % b.rows(), i % b.cols()) * x(r, i);
    CHECK(checks::relative_error(y, expected) < 1e-13);
  }
}

TEST_CASE("Kronecker methods begin as the identity, differentiate and merge") {
  using graft::BasicKronA;
  using graft::BasicMoKA;
  using graft::BasicSoKA;
  const graft::KronAConfig krona{.a_shape = {5, 4}, .scaling = 2};
  CHECK(checks::change_at_init<BasicKronA<double>>(krona) == 0);
  CHECK(checks::gradient_error<BasicKronA<double>>(krona) < 1e-8);
  CHECK(checks::merge_error<graft::KronA>(krona) < 1e-5);
  CHECK(checks::trained<graft::KronA>(krona) == 5 * 4 + 2 * 3);
  CHECK_THROWS_WITH(checks::trained<graft::KronA>({.a_shape = {4, 4}}),
                    Catch::Contains("does not divide"));
  for (const char* gate : {"softmax", "sigmoid", "scalar"}) {
    const graft::MoKAConfig moka{.a_shapes = {{2, 3}, {10, 1}, {1, 12}}, .gate = gate};
    CHECK(checks::change_at_init<BasicMoKA<double>>(moka) == 0);
    CHECK(checks::gradient_error<BasicMoKA<double>>(moka) < 1e-8);
    CHECK(checks::merge_error<graft::MoKA>(moka) < 1e-5);
  }
  for (const char* train : {"both", "sigma"}) {
    const graft::SoKAConfig soka{.rank = 3, .a_shape = {5, 4}, .scaling = 2, .train = train};
    CHECK(checks::change_at_init<BasicSoKA<double>>(soka) < 1e-13);
    CHECK(checks::gradient_error<BasicSoKA<double>>(soka) < 1e-8);
    CHECK(checks::merge_error<graft::SoKA>(soka) < 1e-5);
  }
  const graft::KAdaptationConfig kadaptation{.phm_dim = 2, .scaling = 3, .h_dropout = 0};
  CHECK(checks::change_at_init<graft::BasicKAdaptation<double>>(kadaptation) == 0);
  CHECK(checks::gradient_error<graft::BasicKAdaptation<double>>(kadaptation) < 1e-8);
  CHECK(checks::merge_error<graft::KAdaptation>(kadaptation) < 1e-5);
  CHECK(checks::trained<graft::KAdaptation>(kadaptation) == 12 + 10 + 10 + 2 * 4);
}

TEST_CASE("hypercomplex layers differentiate and merge, and n = 1 is an ordinary layer") {
  graft::PHMConfig phm;
  phm.phm_dim = 2;
  for (const char* rule : {"full", "factorised"})
    for (const char* mode : {"delta", "replace"}) {
      phm.phm_rule = rule;
      phm.mode = mode;
      CHECK(checks::gradient_error<graft::BasicPHM<double, graft::PHMConfig>>(phm) < 1e-8);
      CHECK(checks::merge_error<graft::PHM>(phm) < 1e-5);
    }
  graft::LPHMConfig low;
  low.phm_dim = 2;
  low.phm_rank = 2;
  CHECK(checks::change_at_init<graft::BasicPHM<double, graft::LPHMConfig>>(low) < 1e-3);
  CHECK(checks::gradient_error<graft::BasicPHM<double, graft::LPHMConfig>>(low) < 1e-8);
  CHECK(checks::merge_error<graft::LPHM>(low) < 1e-5);
  CHECK(checks::trained<graft::LPHM>(low) == 2 * (12 + 10) + 8);
}

TEST_CASE("Compacter begins close to the identity and shares its rule") {
  graft::CompacterConfig config;
  config.phm_dim = 2;
  config.bottleneck = 4;
  CHECK(checks::change_at_init<Compacter<double>>(config) < 1e-6);
  CHECK(checks::gradient_error<Compacter<double>>(config) < 1e-7);
  CHECK(checks::trained<Compacter<float>>(config) == 2 * (10 + 4) + 10 + 4 + 8);
  config.shared_phm_rule = false;
  CHECK(checks::trained<Compacter<float>>(config) == 2 * (10 + 4) + 10 + 4 + 16);
}

TEST_CASE("tensor trains multiply out to their matrix and differentiate") {
  CHECK(graft::detail::balanced_modes(768 * 8).size() == 4);
  graft::StandaloneInit<double> init(5);
  const graft::detail::TensorTrain<double> train("test", "core", 6, 10, {3, 4, 5}, 2, false,
                                                 init.context());
  std::vector<graft::AdapterTensor<double>> list;
  train.list(list);
  std::vector<graft::BasicParameter<double>> cores;
  for (auto& t : list) {
    t.parameter.assign(checks::random_tensor<double>(t.parameter.shape(),
                                                     static_cast<unsigned>(cores.size() + 1)));
    cores.push_back(t.parameter);
  }
  REQUIRE(cores.size() == 3);
  const auto weights = checks::random_tensor<double>({6, 10}, 4);
  const auto matrix = [&](graft::BasicTape<double>& t) { return train(t); };
  graft::BasicTape<double> tape;
  const auto m = matrix(tape).value();
  double expected = 0;
  for (Index r = 0; r < 2; ++r)
    for (Index s = 0; s < 2; ++s)
      expected += cores[0].value()[2 * 2 + r] * cores[1].value()[(r * 4 + 1) * 2 + s] *
                  cores[2].value()[s * 5 + 3];
  CHECK(m[(2 * 4 + 1) * 5 + 3] == Approx(expected).epsilon(1e-12));
  CHECK(graft::gradient_check(
            [&](graft::BasicTape<double>& t) { return sum(mul(matrix(t), t.constant(weights))); },
            cores)
            .relative_error < 1e-8);
}

TEST_CASE("ranks by spectrum: energy, elbow and the cap") {
  const auto rank = graft::soka_rank({4, 2, 1, 0.5, 0.25}, 0.9, 64);
  CHECK(rank.energy == 2);
  CHECK(rank.chosen == 2);
  CHECK(graft::soka_rank({1, 1, 1}, 0.5, 64).elbow == 3);
  CHECK(graft::soka_rank({3}, 0.9, 64).chosen == 1);
  CHECK(graft::soka_rank({4, 2, 1, 0.5, 0.25}, 1, 1).chosen == 1);
}
