#pragma once

#include <utility>

#include "graft/autograd/ops/common.hpp"

namespace graft::inline v0_1 {

/// x itself, whose gradient becomes project(gradient): for values that may only move in some
/// directions. `project` maps a tensor of x's shape to another and owns what it uses.
template <std::floating_point T, class Project>
BasicVar<T> project_gradient(const BasicVar<T>& x, Project project) {
  return x.tape().record(x.value(), x.requires_grad(),
                         [gx = x.grad_ref(), project = std::move(project)](
                             const BasicTensor<T>& dy) { gx.add(project(dy)); });
}

}  // namespace graft::inline v0_1
