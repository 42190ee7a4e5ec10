#include "graft/adapters/bottleneck/polyhistor.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

namespace {

using graft::Index;

template <class T, bool kLite>
struct Layer : graft::SerialAdapter<graft::BasicPolyhistor<T>> {
  using Module = graft::BasicPolyhistor<T>;
  using Config = graft::PolyhistorConfig;
  Layer(const Config& config, const graft::LinearSiteInfo<T>& site, graft::InitContext<T>& context)
      : graft::SerialAdapter<Module>(
            Module(config, kLite, site.out_features, 1, 2, config.base_dim, context)) {}
};
graft::PolyhistorConfig config() {
  return {
      .base_dim = 5, .adapter_dim = 3, .rank = 2, .embedding_dim = 4, .num_tasks = 2, .task = 1};
}

}  // namespace

TEST_CASE("Polyhistor begins as the identity, differentiates and counts") {
  CHECK(checks::change_at_init<Layer<double, false>>(config()) == 0);
  CHECK(checks::change_at_init<Layer<double, true>>(config()) == 0);
  CHECK(checks::gradient_error<Layer<double, false>>(config(), 10, 12, 0.8) < 1e-7);
  CHECK(checks::gradient_error<Layer<double, true>>(config(), 10, 12, 0.8) < 1e-7);
  // 2 e (a k + k n) + e / 2 (tasks + layers), and two kernels of 2, biases of 3 and 10.
  CHECK(checks::trained<Layer<float, false>>(config()) == 2 * 4 * (10 + 6) + 2 * 4 + 4 + 13);
  CHECK_THROWS_WITH((checks::change_at_init<Layer<double, false>>(config(), 11)),
                    Catch::Contains("width of 11"));
}

TEST_CASE("Polyhistor's matrices are scaled copies of one template of low rank") {
  graft::StandaloneInit<double> init(3);
  const graft::BasicPolyhistor<double> module(config(), false, 15, 0, 2, 5, init.context());
  checks::randomize(module);
  const auto [down, up] = module.exported();
  graft::BasicTensor<double> kernel;
  for (const auto& t : module.tensors())
    if (t.name == "polyhistor_up_kernel") kernel = t.parameter.value();
  for (Index copy = 1; copy < 3; ++copy)
    for (Index i = 0; i < 15; ++i)
      CHECK(up[copy * 15 + i] * kernel[0] == Approx(up[i] * kernel[copy]));
  graft::BasicTape<double> tape({.gradients = false});
  const auto x = tape.constant(checks::random_tensor<double>({4, 15}, 2));
  const auto biases = [&](const std::string& name) {
    for (const auto& t : module.tensors())
      if (t.name == name) return tape.constant(t.parameter.value());
    return graft::BasicVar<double>{};
  };
  const auto inner =
      gelu(add(matmul(x, tape.constant(down), graft::Transpose::no, graft::Transpose::yes),
               biases("adapter_down.bias")));
  const auto y = add(matmul(inner, tape.constant(up), graft::Transpose::no, graft::Transpose::yes),
                     biases("adapter_up.bias"));
  CHECK(checks::relative_error(module(x).value(), y.value()) < 1e-13);
}

TEST_CASE("layers of Polyhistor-Lite share the kernels of their width") {
  graft::StandaloneInit<double> init(3);
  const auto shared = [&](Index width, Index layer) {
    const graft::BasicPolyhistor<double> module(config(), true, width, layer, 3, 5, init.context());
    for (const auto& t : module.tensors())
      if (t.name.find("down_kernel") != std::string::npos) return t;
    return graft::AdapterTensor<double>{};
  };
  const auto first = shared(10, 0), second = shared(5, 1), third = shared(10, 2);
  CHECK(first.name == "model.shared.polyhistor.down_kernel.2");
  CHECK(first.parameter == third.parameter);
  CHECK_FALSE(first.parameter == second.parameter);
}

TEST_CASE("Polyhistor refuses scales and tasks that do not fit") {
  auto c = config();
  c.task = 2;
  CHECK_THROWS_WITH(c.validate(), Catch::Contains("task 2 of 2"));
  c = config();
  c.embedding_dim = 3;
  CHECK_THROWS_WITH(c.validate(), Catch::Contains("even"));
  c = config();
  c.scales = {1, 3};
  CHECK_THROWS_WITH((checks::change_at_init<Layer<double, false>>(c)),
                    Catch::Contains("expected 3 times"));
}
