#pragma once

#include <catch2/catch.hpp>
#include <cmath>
#include <random>
#include <vector>

#include "graft/adapters/adapted.hpp"
#include "graft/autograd/gradient_check.hpp"
#include "graft/autograd/ops/loss.hpp"
#include "graft/layers/dense_linear.hpp"

/// What holds for every method of linear sites, as one-call checks.
namespace checks {

using graft::Index;
using graft::Shape;

template <class T>
graft::BasicTensor<T> random_tensor(const Shape& shape, unsigned seed, double scale = 1) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal;
  auto t = graft::BasicTensor<T>::empty(shape);
  for (T& v : t) v = static_cast<T>(scale * normal(generator));
  return t;
}

template <class T>
graft::BasicDenseLinear<T> random_layer(Index out, Index in, unsigned seed, bool bias = true) {
  return graft::BasicDenseLinear<T>(
      random_tensor<T>({out, in}, seed, 0.5),
      bias ? random_tensor<T>({out}, seed + 1, 0.5) : graft::BasicTensor<T>{});
}

template <class T>
double relative_error(const graft::BasicTensor<T>& a, const graft::BasicTensor<T>& b) {
  REQUIRE(a.size() == b.size());
  double error = 0, scale = 1e-30;
  for (Index i = 0; i < a.size(); ++i) {
    error = std::max(error, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
    scale = std::max(scale, std::abs(static_cast<double>(b[i])));
  }
  return error / scale;
}

/// Site description of a layer, with its weight at hand.
template <class T>
graft::LinearSiteInfo<T> site_of(const graft::BasicDenseLinear<T>& layer,
                                 const std::string& path = "proj") {
  graft::LinearSiteInfo<T> site;
  site.path = path;
  site.in_features = layer.in_features();
  site.out_features = layer.out_features();
  site.weight = [&layer] { return layer.dense_weight(); };
  site.bias = layer.bias();
  site.all_sites = {{path, Shape{layer.out_features(), layer.in_features()}}};
  return site;
}

/// A method at sites of these paths, all over one layer.
template <class Method>
std::vector<graft::PlacedPart<double>> placed(const typename Method::Config& config,
                                              const graft::BasicDenseLinear<double>& layer,
                                              const std::vector<std::string>& paths) {
  graft::TorchGenerator generator(3);
  graft::SharedParameters<double> shared;
  graft::InitContext<double> context{generator, shared};
  std::vector<graft::PlacedPart<double>> parts;
  for (const auto& path : paths)
    parts.push_back({path, Method::linear(config, site_of(layer, path), context)});
  return parts;
}

template <class M>
M make(const typename M::Config& config, const graft::LinearSiteInfo<typename M::Scalar>& site,
       std::uint64_t seed = 7) {
  graft::TorchGenerator generator(seed);
  graft::SharedParameters<typename M::Scalar> shared;
  graft::InitContext<typename M::Scalar> context{generator, shared};
  return M(config, site, context);
}

/// Gives every trained tensor new random values, so that nothing is zero or an identity.
template <class M>
void randomize(const M& method, double scale = 0.3, unsigned seed = 11) {
  for (auto& t : method.tensors()) {
    if (!t.parameter || !t.parameter.trainable()) continue;
    t.parameter.assign(random_tensor<typename M::Scalar>(t.parameter.shape(), seed++, scale));
  }
}

template <class M>
graft::BasicTensor<typename M::Scalar> output(
    const M& method, const graft::BasicDenseLinear<typename M::Scalar>& layer,
    const graft::BasicTensor<typename M::Scalar>& x) {
  graft::BasicTape<typename M::Scalar> tape({.gradients = false, .training = false});
  return method.apply(layer, tape.constant(x)).value();
}
template <class T>
graft::BasicTensor<T> base_output(const graft::BasicDenseLinear<T>& layer,
                                  const graft::BasicTensor<T>& x) {
  graft::BasicTape<T> tape({.gradients = false, .training = false});
  return linear(layer, tape.constant(x)).value();
}

/// Largest relative change that the freshly made method makes to the layer's output.
template <class M>
double change_at_init(const typename M::Config& config, Index out = 10, Index in = 12) {
  const auto layer = random_layer<double>(out, in, 1);
  const auto method = make<M>(config, site_of(layer));
  const auto x = random_tensor<double>({5, in}, 2);
  return relative_error(output(method, layer, x), base_output(layer, x));
}

/// Worst relative error of the gradients of x and of every trained tensor, at random values.
template <class M>
double gradient_error(const typename M::Config& config, Index out = 10, Index in = 12,
                      double scale = 0.3) {
  const auto layer = random_layer<double>(out, in, 3);
  const auto method = make<M>(config, site_of(layer));
  randomize(method, scale);
  std::vector<graft::BasicParameter<double>> parameters{
      graft::BasicParameter<double>(random_tensor<double>({2, 3, in}, 4))};
  for (auto& t : method.tensors())
    if (t.parameter && t.parameter.trainable()) parameters.push_back(t.parameter);
  const auto weights = random_tensor<double>({2, 3, out}, 5);
  return graft::gradient_check(
             [&](graft::BasicTape<double>& tape) {
               return sum(
                   mul(method.apply(layer, tape.parameter(parameters[0])), tape.constant(weights)));
             },
             parameters)
      .relative_error;
}

/// Worst relative error of the gradients of the auxiliary loss, at random values.
template <class M>
double auxiliary_gradient_error(const typename M::Config& config) {
  const auto layer = random_layer<double>(10, 12, 3);
  const auto method = make<M>(config, site_of(layer));
  randomize(method);
  std::vector<graft::BasicParameter<double>> parameters{
      graft::BasicParameter<double>(random_tensor<double>({7, 12}, 4))};
  for (auto& t : method.tensors()) parameters.push_back(t.parameter);
  return graft::gradient_check(
             [&](graft::BasicTape<double>& tape) {
               method.apply(layer, tape.parameter(parameters[0]));
               return method.auxiliary_loss(tape);
             },
             parameters)
      .relative_error;
}

/// Relative difference between the merged layer and the unmerged computation, in float, at random
/// values.
template <class M>
double merge_error(const typename M::Config& config, Index out = 10, Index in = 12,
                   bool bias = true, double scale = 0.3) {
  const auto layer = random_layer<float>(out, in, 6, bias);
  const auto method = make<M>(config, site_of(layer));
  randomize(method, scale);
  const auto x = random_tensor<float>({7, in}, 8);
  return relative_error(base_output(merge_linear(layer, method), x), output(method, layer, x));
}

/// Trained elements of the method on one layer.
template <class M>
Index trained(const typename M::Config& config, Index out = 10, Index in = 12) {
  const auto layer = random_layer<float>(out, in, 9);
  return graft::trainable_elements(make<M>(config, site_of(layer)).tensors());
}

}  // namespace checks
