#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "graft/adapters/kronecker/factors.hpp"
#include "graft/adapters/sublayer.hpp"

namespace graft::inline v0_1::detail {

/// N as a product of 4 to 6 numbers that are about equal, none above 16 where that can be.
inline std::vector<Index> balanced_modes(Index size) {
  std::vector<Index> primes;
  for (Index rest = size, p = 2; rest > 1; ++p) {
    if (p * p > rest) p = rest;
    for (; rest % p == 0; rest /= p) primes.push_back(p);
  }
  std::sort(primes.begin(), primes.end(), std::greater<>());
  std::vector<Index> modes;
  for (std::size_t count = 4; count <= 6; ++count) {
    modes.assign(count, 1);
    for (Index p : primes) *std::min_element(modes.begin(), modes.end()) *= p;
    if (*std::max_element(modes.begin(), modes.end()) <= 16) break;
  }
  return modes;
}

/// A matrix [rows, columns] held as a chain of cores C_j: [r_j, n_j, r_j+1], Π n_j = rows ·
/// columns, read row-major; inner ranks are `rank`, the outer ones 1.
template <std::floating_point T>
class TensorTrain {
 public:
  TensorTrain() = default;
  /// Entries of the product have variance 1 / (rows + columns), or are zero with `zero_last`.
  TensorTrain(std::string_view method, std::string name, Index rows, Index columns,
              std::vector<Index> modes, Index rank, bool zero_last, InitContext<T>& context)
      : name_(std::move(name)), rows_(rows), columns_(columns) {
    if (modes.empty()) modes = balanced_modes(rows * columns);
    Index product = 1;
    for (Index m : modes) product *= m;
    if (product != rows * columns)
      throw ValueError(concat(method, ": the modes of ", name_, " have the product ", product,
                              ", expected ", rows, " times ", columns));
    const double share = std::pow(1 / std::sqrt(static_cast<double>(rows + columns)),
                                  1 / static_cast<double>(modes.size()));
    for (std::size_t j = 0; j < modes.size(); ++j) {
      const bool last = j + 1 == modes.size();
      const Index left = j == 0 ? 1 : rank, right = last ? 1 : rank;
      const Shape shape{left, modes[j], right};
      cores_.push_back(last && zero_last
                           ? constant<T>(shape, 0)
                           : BasicParameter<T>(normal_values<T>(
                                 context, shape, share / std::sqrt(static_cast<double>(right)))));
    }
  }
  BasicVar<T> operator()(BasicTape<T>& tape) const {
    auto m = tape.parameter(cores_[0]);
    m = reshape(m, {m.dim(1), m.dim(2)});
    for (std::size_t j = 1; j < cores_.size(); ++j) {
      const auto c = tape.parameter(cores_[j]);
      const Index n = c.dim(1), r = c.dim(2), rows = m.rows();
      m = reshape(matmul(m, reshape(c, {c.dim(0), n * r})), {rows * n, r});
    }
    return reshape(m, {rows_, columns_});
  }
  void list(std::vector<AdapterTensor<T>>& tensors) const {
    for (std::size_t j = 0; j < cores_.size(); ++j)
      tensors.push_back(named(concat(name_, ".", j), cores_[j]));
  }

 private:
  std::string name_;
  Index rows_ = 0, columns_ = 0;
  std::vector<BasicParameter<T>> cores_;
};

}  // namespace graft::inline v0_1::detail
