#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "graft/autograd/ops/common.hpp"
#include "graft/kernels/gemm.hpp"

namespace graft {

/// The tensor that a chain of cores [r_j, n_j, r_j+1] stands for (the outer ranks are 1), row-major
/// as `shape`. Multiplied out in double precision, because every element is a product of many
/// factors; the cores are small beside what the result is used for.
/// @throws ShapeError if the cores do not fit together, or not the shape.
template <std::floating_point T>
BasicVar<T> tensor_train(const std::vector<BasicVar<T>>& cores, const Shape& shape) {
  if (cores.empty()) throw ShapeError("tensor_train: no cores");
  auto& tape = cores[0].tape();
  Index rank = 1, size = 1;
  bool wants = false;
  std::vector<BasicTensor<double>> factors, products;  // products[j]: [n_0 … n_j, r_j+1]
  for (const auto& core : cores) {
    if (core.shape().rank() != 3 || core.dim(0) != rank)
      throw ShapeError(
          concat("tensor_train: core ", core.shape().text(), " after one of rank ", rank));
    const Index n = core.dim(1), right = core.dim(2);
    factors.push_back(core.value().template cast<double>());
    wants = wants || core.requires_grad();
    auto next = BasicTensor<double>::empty({size * n, right});
    if (products.empty())
      std::copy(factors[0].begin(), factors[0].end(), next.begin());
    else
      kernels::gemm(false, false, size, n * right, rank, 1.0, products.back().data(), rank,
                    factors.back().data(), n * right, 0.0, next.data(), n * right);
    products.push_back(std::move(next));
    size *= n;
    rank = right;
  }
  if (rank != 1 || size != shape.elements())
    throw ShapeError(
        concat("tensor_train: ", size, " elements of last rank ", rank, " as ", shape.text()));
  std::vector<BasicGradRef<T>> gradients;
  for (const auto& core : cores) gradients.push_back(core.grad_ref());
  auto value = products.back().template cast<T>().reshape(shape);
  return tape.record(std::move(value), wants,
                     [gradients = std::move(gradients), factors = std::move(factors),
                      products = std::move(products)](const BasicTensor<T>& dy) {
                       auto dm = dy.template cast<double>();  // [size of the product, its rank]
                       for (std::size_t j = factors.size(); j-- > 1;) {
                         const auto& core = factors[j];
                         const auto& before = products[j - 1];
                         const Index left = core.shape()[0], width = core.size() / left,
                                     rows = before.rows();
                         if (gradients[j]) {
                           auto dc = BasicTensor<double>::empty(core.shape());
                           kernels::gemm(true, false, left, width, rows, 1.0, before.data(), left,
                                         dm.data(), width, 0.0, dc.data(), width);
                           gradients[j].add(dc.template cast<T>());
                         }
                         auto next = BasicTensor<double>::empty({rows, left});
                         kernels::gemm(false, true, rows, left, width, 1.0, dm.data(), width,
                                       core.data(), width, 0.0, next.data(), left);
                         dm = std::move(next);
                       }
                       if (gradients[0])
                         gradients[0].add(dm.template cast<T>().reshape(factors[0].shape()));
                     });
}

}  // namespace graft
