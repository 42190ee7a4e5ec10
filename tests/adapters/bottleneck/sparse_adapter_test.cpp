#include "graft/adapters/bottleneck/sparse_adapter.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

namespace {

using graft::Index;
using Tensor = graft::BasicTensor<double>;
using Module = graft::BasicSparseBottleneck<double>;

template <class T>
struct Serial : graft::SerialAdapter<graft::BasicSparseBottleneck<T>> {
  using Config = graft::SparseAdapterConfig;
  Serial(const Config& config, const graft::LinearSiteInfo<T>& site, graft::InitContext<T>& context)
      : graft::SerialAdapter<graft::BasicSparseBottleneck<T>>(
            graft::BasicSparseBottleneck<T>(site.out_features, config, context)) {}
};

Index zeros(const Tensor& t) { return std::count(t.begin(), t.end(), 0.0); }

}  // namespace

TEST_CASE("a sparse adapter is a Houlsby adapter until it is pruned") {
  CHECK(checks::change_at_init<Serial<double>>({.adapter_dim = 4}) < 0.02);
  CHECK(checks::gradient_error<Serial<double>>({.adapter_dim = 4}) < 1e-7);
  CHECK(checks::merge_error<Serial<float>>({.adapter_dim = 3, .non_linearity = "identity"}) < 1e-5);
  CHECK(checks::trained<Serial<float>>({.adapter_dim = 3}, 11, 5) == 2 * 11 * 3 + 3 + 11);
}

TEST_CASE("pruned elements are zero, get no gradient and are known again from a file") {
  graft::StandaloneInit<double> init(5);
  Module module(6, {.adapter_dim = 4}, init.context());
  std::vector<Tensor> scores;
  for (const bool down : {true, false})
    scores.push_back(checks::random_tensor<double>(module.weight(down).shape(), down ? 1 : 2));
  graft::prune_adapters<double>({&module}, scores, 0.4);
  CHECK(zeros(module.weight(true).value()) + zeros(module.weight(false).value()) == 19);
  // A second round counts those that are gone, whatever their scores.
  for (auto& s : scores)
    for (double& v : s) v = -v;
  graft::prune_adapters<double>({&module}, scores, 0.5);
  CHECK(zeros(module.weight(true).value()) + zeros(module.weight(false).value()) == 24);

  graft::BasicTape<double> tape;
  tape.backward(sum(module(tape.constant(checks::random_tensor<double>({3, 6}, 3)))));
  for (const bool down : {true, false}) {
    const auto& w = module.weight(down);
    for (Index i = 0; i < w.size(); ++i) CHECK((w.value()[i] == 0) == (w.grad()[i] == 0));
  }

  Module read(6, {.adapter_dim = 4}, init.context());
  for (const bool down : {true, false}) read.weight(down).assign(module.weight(down).value());
  read.after_load();
  for (const bool down : {true, false})
    CHECK(checks::relative_error(read.mask(down), module.mask(down)) == 0);
}

TEST_CASE("GraSP is w ⊙ (H g) and leaves the weights as they were") {
  // L = ½ wᵀ A w: H = A, g = A w.
  const auto a = checks::random_tensor<double>({4, 4}, 8);
  auto h = Tensor::empty({4, 4});
  for (Index i = 0; i < 4; ++i)
    for (Index j = 0; j < 4; ++j) h(i, j) = a(i, j) + a(j, i);
  const graft::BasicParameter<double> w(checks::random_tensor<double>({1, 4}, 9));
  const auto before = w.value().clone();
  const auto times = [&](const Tensor& v) {
    auto y = Tensor::zeros({1, 4});
    for (Index i = 0; i < 4; ++i)
      for (Index j = 0; j < 4; ++j) y[i] += h(i, j) * v[j];
    return y;
  };
  const auto score =
      graft::grasp_scores<double>({w}, [&] { return std::vector<Tensor>{times(w.value())}; });
  auto expected = times(times(before));
  for (Index i = 0; i < 4; ++i) expected[i] *= before[i];
  CHECK(checks::relative_error(score[0], expected) < 1e-8);
  CHECK(checks::relative_error(w.value(), before) == 0);
}

TEST_CASE("SynFlow does not see signs") {
  graft::StandaloneInit<double> init(5);
  const Module module(5, {.adapter_dim = 3, .non_linearity = "gelu"}, init.context());
  checks::randomize(module);
  const auto first = module.synflow();
  for (const auto& t : module.tensors()) {
    auto v = t.parameter.value().clone();
    for (Index i = 0; i < v.size(); i += 2) v[i] = -v[i];
    t.parameter.assign(std::move(v));
  }
  const auto second = module.synflow();
  CHECK(checks::relative_error(first.first, second.first) == 0);
  CHECK(checks::relative_error(first.second, second.second) == 0);
}

TEST_CASE("SparseAdapter grows to its sparsity and refuses what it does not know") {
  const graft::SparseAdapterConfig config{.sparsity = 0.5, .rounds = 3};
  CHECK(config.sparsity_after(2) == Approx(0.5));
  CHECK(config.sparsity_after(0) == Approx(1 - std::cbrt(0.5)));
  const graft::SparseAdapterConfig even{.sparsity = 0.5, .rounds = 3, .schedule = "linear"};
  CHECK(even.sparsity_after(2) == Approx(0.5));
  CHECK(even.sparsity_after(0) == Approx(0.5 / 3));
  CHECK_THROWS_WITH(graft::SparseAdapterConfig{.schedule = "cosine"}.validate(),
                    Catch::Contains("exponential or linear"));
  CHECK_THROWS_WITH(graft::SparseAdapterConfig{.sparsity = 1}.validate(),
                    Catch::Contains("sparsity 1"));
  CHECK_THROWS_WITH(graft::SparseAdapterConfig{.score = "luck"}.validate(),
                    Catch::Contains("'luck'"));
}
