#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>
#include <vector>

#include "graft/autograd/tape.hpp"
#include "graft/base/rng.hpp"

namespace graft::inline v0_1 {

/// Largest disagreement that a gradient check found.
struct GradientCheck {
  double relative_error =
      0;  ///< max |analytic - numeric| / max(floor, max |numeric|) over one input, worst input
  std::size_t input = 0;  ///< number of the worst input
};

/// Compares the gradient of a scalar function with central differences in double precision.
///
/// `f(tape)` builds the loss from the parameters, which it must read through `tape.parameter`. At
/// most `probes` elements of each parameter are moved, by `step` each way; they are chosen by
/// `seed`. Gradients below `floor` count as of that size: differences of a function of size one are
/// exact to ten digits only.
template <class F>
GradientCheck gradient_check(F&& f, const std::vector<BasicParameter<double>>& parameters,
                             double step = 1e-5, Index probes = 24, unsigned seed = 1,
                             double floor = 1e-8) {
  for (const auto& p : parameters) p.zero_grad();
  {
    BasicTape<double> tape;
    tape.backward(f(tape));
  }
  TorchGenerator generator(seed);
  GradientCheck result;
  for (std::size_t k = 0; k < parameters.size(); ++k) {
    const auto& p = parameters[k];
    double error = 0, scale = floor;
    const Index n = std::min(probes, p.size());
    for (Index i = 0; i < n; ++i) {
      const Index at =
          n == p.size()
              ? i
              : static_cast<Index>(generator.random32() % static_cast<std::size_t>(p.size()));
      double& element = p.value()[at];
      const double old = element;
      const auto value = [&](double x) {
        element = x;
        BasicTape<double> tape({.gradients = false});
        return f(tape).item();
      };
      const double numeric = (value(old + step) - value(old - step)) / (2 * step);
      element = old;
      const double analytic = p.grad() ? p.grad()[at] : 0.0;
      error = std::max(error, std::abs(analytic - numeric));
      scale = std::max(scale, std::abs(numeric));
    }
    if (error / scale > result.relative_error) result = {error / scale, k};
  }
  return result;
}

}  // namespace graft::inline v0_1
