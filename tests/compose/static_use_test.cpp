#include <catch2/catch.hpp>
#include <string>
#include <type_traits>

#include "graft/adapters/adapted.hpp"
#include "graft/adapters/elementwise/methods.hpp"
#include "graft/adapters/kronecker/methods.hpp"
#include "graft/adapters/low_rank/methods.hpp"
#include "graft/adapters/memory/methods.hpp"
#include "graft/adapters/mixtures/methods.hpp"
#include "graft/adapters/orthogonal/methods.hpp"
#include "graft/adapters/quantized/methods.hpp"
#include "graft/adapters/selection/methods.hpp"
#include "graft/adapters/sparse/methods.hpp"
#include "graft/adapters/spectral/methods.hpp"

// Methods that are one class for linear layers are used without a registry too: Adapted<Layer, M>.

namespace {

using graft::DenseLinear;
using graft::Index;
using graft::Tensor;

constexpr Index kWide = 256;

Tensor random_tensor(const graft::Shape& shape, std::uint64_t seed, double scale) {
  graft::TorchGenerator generator(seed);
  auto t = Tensor::empty(shape);
  generator.normal(t.data(), t.size(), 0.0, scale);
  return t;
}

template <class M>
void compare() {
  INFO(M::info().peft_type);
  typename M::Config config;
  if constexpr (requires { M::example(); }) config = M::example();
  const DenseLinear layer(random_tensor({kWide, kWide}, 1, 0.1), random_tensor({kWide}, 3, 0.1));
  auto site = graft::site_info(layer);
  site.path = "layers.0.proj";
  site.layer = 0;
  site.layers = 1;
  site.bias = layer.bias();
  site.all_sites = {{site.path, {kWide, kWide}}};
  site.weight_at = [&](const std::string&) { return layer.dense_weight(); };
  graft::StandaloneInit<float> init(5);
  M method(config, site, init.context());
  std::uint64_t seed = 7;
  for (auto& t : method.tensors()) {
    if (!t.parameter || !t.parameter.trainable()) continue;
    auto value = t.parameter.value().clone();
    const auto noise = random_tensor(value.shape(), seed++, 0.02);
    for (Index i = 0; i < value.size(); ++i) value[i] += noise[i];
    t.parameter.assign(std::move(value));
  }
  if constexpr (requires { method.after_load(); }) method.after_load();

  const auto context = std::make_shared<graft::ForwardContext>();
  context->batch = 3;
  context->task_ids = {0, 0, 0};
  const auto x = random_tensor({3, kWide}, 2, 1);
  const auto run = [&](const auto& adapted) {
    graft::Tape tape({.gradients = false, .training = false});
    tape.set_context(context);
    return adapted(tape.constant(x)).value().clone();
  };
  const graft::Adapted<DenseLinear, M> adapted(layer, method);
  graft::LinearSite erased("layers.0.proj", layer);
  erased.adapters().push_back({"a", graft::linear_part(method)});
  erased.activate({"a"});
  const auto a = run(adapted), b = run(erased);
  CHECK(std::equal(a.begin(), a.end(), b.begin(), b.end()));
}

template <class Descriptor>
struct OneClass : std::false_type {};
template <class M>
struct OneClass<graft::LinearMethod<M>> : std::true_type {
  using Method = M;
};

template <class... Descriptors>
int compare_all(graft::MethodList<Descriptors...>) {
  int count = 0;
  const auto one = [&]<class Descriptor>(const Descriptor*) {
    if constexpr (OneClass<Descriptor>::value) {
      compare<typename OneClass<Descriptor>::Method>();
      ++count;
    }
  };
  (one(static_cast<const Descriptors*>(nullptr)), ...);
  return count;
}

}  // namespace

TEST_CASE("Static and erased use of a method give the same bits") {
  CHECK(compare_all(graft::ElementwiseMethods<float>{}) > 0);
  CHECK(compare_all(graft::KroneckerMethods<float>{}) > 0);
  CHECK(compare_all(graft::LowRankMethods<float>{}) > 0);
  CHECK(compare_all(graft::MemoryMethods<float>{}) > 0);
  CHECK(compare_all(graft::MixturesMethods<float>{}) > 0);
  CHECK(compare_all(graft::OrthogonalMethods<float>{}) > 0);
  CHECK(compare_all(graft::QuantizedMethods<float>{}) > 0);
  CHECK(compare_all(graft::SelectionMethods<float>{}) > 0);
  CHECK(compare_all(graft::SparseMethods<float>{}) > 0);
  CHECK(compare_all(graft::SpectralMethods<float>{}) > 0);
}
