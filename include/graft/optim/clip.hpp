#pragma once

#include <cmath>
#include <vector>

#include "graft/autograd/parameter.hpp"
#include "graft/kernels/elementwise.hpp"

namespace graft::inline v0_1 {

/// √(Σ |g|²) over the gradients of all parameters; those without a gradient count as zero. The sum
/// is taken parameter by parameter in double, so it does not depend on the number of threads.
template <std::floating_point T>
double gradient_norm(const std::vector<BasicParameter<T>>& parameters) {
  double squares = 0;
  for (const auto& p : parameters)
    if (p.grad())
      squares +=
          static_cast<double>(kernels::dot(p.grad().data(), p.grad().data(), p.grad().size()));
  return std::sqrt(squares);
}

/// Factor that brings a gradient of norm `norm` down to `max_norm`: min(1, max_norm / (norm +
/// 1e-6)), as torch.nn.utils.clip_grad_norm_ has it; 1 for max_norm ≤ 0. Give it to the optimiser's
/// step.
inline double clip_factor(double norm, double max_norm) {
  if (!(max_norm > 0)) return 1;
  const double factor = max_norm / (norm + 1e-6);
  return factor < 1 ? factor : 1;
}

}  // namespace graft::inline v0_1
