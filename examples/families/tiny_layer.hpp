#pragma once

#include <cmath>
#include <cstdio>
#include <functional>
#include <vector>

#include "graft/adapters/adapted.hpp"
#include "graft/autograd/ops/loss.hpp"
#include "graft/base/rng.hpp"
#include "graft/optim/adamw.hpp"

/// What the examples of the families share: a small frozen layer, a changed one to learn from its
/// outputs, and the loop.
namespace tiny {

inline constexpr graft::Index kIn = 64, kOut = 64, kRows = 32;

inline graft::Tensor normal(const graft::Shape& shape, std::uint64_t seed, double deviation = 1) {
  graft::TorchGenerator generator(seed);
  auto t = graft::Tensor::empty(shape);
  generator.normal(t.data(), t.size(), 0.0, deviation);
  return t;
}
inline graft::DenseLinear frozen_layer() {
  return graft::DenseLinear(normal({kOut, kIn}, 1, 0.125), normal({kOut}, 2, 0.1));
}

/// Trains `parameters` until `model` gives what `teacher` gives on random inputs. True if the loss
/// falls below `share` of what it was.
inline bool learns(const char* name, const std::vector<graft::Parameter>& parameters,
                   const std::function<graft::Var(const graft::Var&)>& model,
                   const std::function<graft::Var(const graft::Var&)>& teacher, double share,
                   double learning_rate = 1e-2, int steps = 300) {
  graft::AdamW optimizer(parameters, {.learning_rate = learning_rate});
  graft::Index trained = 0;
  for (const auto& p : parameters) trained += p.size();
  double first = 0, last = 0;
  for (int step = 0; step < steps; ++step) {
    graft::Tape tape({.seed = static_cast<std::uint64_t>(step)});
    const auto x = tape.constant(normal({kRows, kIn}, 100 + static_cast<std::uint64_t>(step)));
    const auto loss = graft::mse(model(x), teacher(x).detach());
    last = static_cast<double>(loss.item());
    if (step == 0) first = last;
    tape.backward(loss);
    optimizer.step();
    optimizer.zero_grad();
  }
  std::printf("%s: %td trained, loss %.2e -> %.2e\n", name, trained, first, last);
  return last < share * first;
}

/// Largest difference between a layer with its adapter and the one layer that it merges into.
template <class Layer>
double merge_error(const Layer& layer) {
  graft::Tape tape({.gradients = false, .training = false});
  const auto x = tape.constant(normal({kRows, kIn}, 9));
  const graft::DenseLinear merged = layer.merge();
  const auto a = layer(x).value(), b = graft::linear(merged, x).value();
  double worst = 0;
  for (graft::Index i = 0; i < a.size(); ++i)
    worst = std::max(worst, static_cast<double>(std::abs(a[i] - b[i])));
  return worst;
}

}  // namespace tiny
