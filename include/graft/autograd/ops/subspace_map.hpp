#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "graft/autograd/ops/common.hpp"
#include "graft/base/rng.hpp"
#include "graft/base/splitmix.hpp"
#include "graft/kernels/gemm.hpp"
#include "graft/tensor/hadamard.hpp"

namespace graft::inline v0_1 {

/// A fixed linear map P from d numbers to many.
template <std::floating_point T>
class SubspaceMap {
 public:
  virtual ~SubspaceMap() = default;
  virtual Index inputs() const = 0;
  virtual Index outputs() const = 0;
  /// y = P θ.
  virtual void apply(const T* theta, T* y) const = 0;
  /// dθ += Pᵀ dy.
  virtual void add_adjoint(const T* dy, T* dtheta) const = 0;
};

/// P θ, [outputs]. @throws ShapeError if θ does not have the inputs of the map.
template <std::floating_point T>
BasicVar<T> subspace_map(const BasicVar<T>& theta, std::shared_ptr<const SubspaceMap<T>> map);

/// P as a matrix [outputs, inputs].
template <std::floating_point T>
class DenseMap final : public SubspaceMap<T> {
 public:
  explicit DenseMap(BasicTensor<T> matrix) : matrix_(std::move(matrix)) {
    if (matrix_.rank() != 2)
      throw ShapeError(concat("DenseMap: shape ", matrix_.shape().text(), ", expected a matrix"));
  }
  Index inputs() const override { return matrix_.cols(); }
  Index outputs() const override { return matrix_.rows(); }
  void apply(const T* theta, T* y) const override {
    const Index d = inputs(), n = outputs();
    kernels::gemm(false, true, 1, n, d, T{1}, theta, d, matrix_.data(), d, T{0}, y, n);
  }
  void add_adjoint(const T* dy, T* dtheta) const override {
    const Index d = inputs(), n = outputs();
    kernels::gemm(false, false, 1, d, n, T{1}, dy, n, matrix_.data(), d, T{1}, dtheta, d);
  }

 private:
  BasicTensor<T> matrix_;
};

/// A dense P that is computed when it is needed: `rows(block, count, out)` writes the first `count`
/// rows of a block as [count, d]; columns are multiplied by `scale` [d]. The last P θ is kept, as
/// many elements as the map has outputs: a step asks for it in both passes, an evaluation for every
/// batch.
template <std::floating_point T>
class DrawnMap final : public SubspaceMap<T> {
 public:
  using Rows = std::function<void(Index block, Index count, T* out)>;

  DrawnMap(Index outputs, Index rows_per_block, BasicTensor<T> scale, Rows rows)
      : outputs_(outputs),
        block_(rows_per_block),
        scale_(std::move(scale)),
        rows_(std::move(rows)) {}
  Index inputs() const override { return scale_.size(); }
  Index outputs() const override { return outputs_; }
  void apply(const T* theta, T* y) const override {
    if (std::all_of(theta, theta + inputs(), [](T v) { return v == 0; })) {
      std::fill_n(y, outputs_, T{0});
      return;
    }
    const std::lock_guard lock(mutex_);
    if (theta_.empty() || !std::equal(theta_.begin(), theta_.end(), theta)) {
      theta_.clear();  // what is kept belongs to no θ until it is whole
      kept_.resize(static_cast<std::size_t>(outputs_));
      compute(theta, kept_.data());
      theta_.assign(theta, theta + inputs());
    }
    std::copy(kept_.begin(), kept_.end(), y);
  }
  void add_adjoint(const T* dy, T* dtheta) const override {
    // Sums over fixed parts, so that threads do not change the order.
    const Index d = inputs(), parts = std::min<Index>(blocks(), 16);
    auto sums = BasicTensor<T>::zeros({parts, d});
    ThreadPool::global().parallel_for(parts, [&](Index part) {
      for (Index b = part * blocks() / parts; b < (part + 1) * blocks() / parts; ++b) {
        const auto [first, p] = block(b);
        kernels::gemm(false, false, 1, d, p.rows(), T{1}, dy + first, p.rows(), p.data(), d, T{1},
                      sums.data() + part * d, d);
      }
    });
    for (Index part = 0; part < parts; ++part)
      for (Index i = 0; i < d; ++i) dtheta[i] += sums(part, i) * scale_[i];
  }

 private:
  void compute(const T* theta, T* y) const {
    const Index d = inputs();
    auto scaled = BasicTensor<T>::empty({d});
    kernels::mul(theta, scale_.data(), scaled.data(), d);
    ThreadPool::global().parallel_for(blocks(), [&](Index b) {
      const auto [first, p] = block(b);
      kernels::gemm(false, true, 1, p.rows(), d, T{1}, scaled.data(), d, p.data(), d, T{0},
                    y + first, p.rows());
    });
  }
  Index blocks() const { return (outputs_ + block_ - 1) / block_; }
  std::pair<Index, BasicTensor<T>> block(Index b) const {
    const Index first = b * block_, count = std::min(block_, outputs_ - first);
    auto p = BasicTensor<T>::empty({count, inputs()});
    rows_(b, count, p.data());
    return {first, std::move(p)};
  }

  Index outputs_, block_;
  BasicTensor<T> scale_;
  Rows rows_;
  mutable std::mutex mutex_;
  mutable std::vector<T> theta_, kept_;  ///< the last θ and P θ
};

/// P with few elements.
template <std::floating_point T>
class SparseMap final : public SubspaceMap<T> {
 public:
  struct Element {
    std::int32_t row, col;
    T value;
  };
  SparseMap(Index outputs, Index inputs, std::vector<Element> elements)
      : outputs_(outputs), inputs_(inputs), elements_(std::move(elements)) {}
  Index inputs() const override { return inputs_; }
  Index outputs() const override { return outputs_; }
  void apply(const T* theta, T* y) const override {
    std::fill_n(y, outputs_, T{0});
    for (const auto& e : elements_) y[e.row] += e.value * theta[e.col];
  }
  void add_adjoint(const T* dy, T* dtheta) const override {
    for (const auto& e : elements_) dtheta[e.col] += e.value * dy[e.row];
  }

 private:
  Index outputs_, inputs_;
  std::vector<Element> elements_;
};

/// What Fastfood draws for one tensor, L numbers each, L a power of two.
template <std::floating_point T>
struct FastfoodDraw {
  std::vector<T> signs;                   ///< B: ±1
  std::vector<std::int32_t> permutation;  ///< Π
  std::vector<T> normals;                 ///< G
};

/// Length L of the transforms for D outputs from d inputs: the power of two from max(D, d) on.
GRAFT_KERNEL Index fastfood_length(Index outputs, Index inputs);

template <std::floating_point T>
FastfoodDraw<T> draw_fastfood(Index length, std::uint64_t seed);

/// Fastfood: y = (H (G ⊙ Π H (B ⊙ pad θ)))[: D] / √(D Σ G²), H the Walsh–Hadamard matrix: a random
/// map that keeps norms on average, in O(L log L).
///
/// Only the first d numbers of the padded θ are not zero, so the inner transform repeats one of
/// length 2^⌈log₂ d⌉ and the permutation reads that one. Source: Le, Sarlós & Smola 2013; scaling
/// as in Li et al. 2018 (arXiv:1804.08838).
template <std::floating_point T>
class FastfoodMap final : public SubspaceMap<T> {
 public:
  /// `draw()` gives B, Π and G whenever they are needed. @throws ShapeError for other lengths.
  FastfoodMap(Index outputs, Index inputs, std::function<FastfoodDraw<T>()> draw)
      : outputs_(outputs), inputs_(inputs), draw_(std::move(draw)) {}
  /// The same with numbers that are kept.
  FastfoodMap(Index outputs, Index inputs, FastfoodDraw<T> draw)
      : outputs_(outputs), inputs_(inputs), kept_(prepared(draw)) {}
  Index inputs() const override { return inputs_; }
  Index outputs() const override { return outputs_; }
  void apply(const T* theta, T* y) const override {
    with_draw([&](const Prepared& draw) {
      const auto length = static_cast<Index>(draw.normals.size());
      auto low = BasicTensor<T>::zeros({draw.period}), p = BasicTensor<T>::empty({length});
      for (Index i = 0; i < inputs_; ++i)
        low[i] = draw.signs[static_cast<std::size_t>(i)] * theta[i];
      walsh_hadamard(low.data(), draw.period);
      for (Index k = 0; k < length; ++k)
        p[k] =
            draw.normals[static_cast<std::size_t>(k)] * low[draw.from[static_cast<std::size_t>(k)]];
      walsh_hadamard(p.data(), length);
      for (Index i = 0; i < outputs_; ++i) y[i] = draw.scale * p[i];
    });
  }
  void add_adjoint(const T* dy, T* dtheta) const override {
    with_draw([&](const Prepared& draw) {
      const auto length = static_cast<Index>(draw.normals.size());
      auto low = BasicTensor<T>::zeros({draw.period}), p = BasicTensor<T>::zeros({length});
      for (Index i = 0; i < outputs_; ++i) p[i] = draw.scale * dy[i];
      walsh_hadamard(p.data(), length);
      for (Index k = 0; k < length; ++k)
        low[draw.from[static_cast<std::size_t>(k)]] +=
            draw.normals[static_cast<std::size_t>(k)] * p[k];
      walsh_hadamard(low.data(), draw.period);
      for (Index i = 0; i < inputs_; ++i)
        dtheta[i] += draw.signs[static_cast<std::size_t>(i)] * low[i];
    });
  }

 private:
  struct Prepared {
    std::vector<T> signs, normals;
    std::vector<std::int32_t> from;  // Π modulo the period
    Index period = 1;
    T scale = 0;
  };
  Prepared prepared(FastfoodDraw<T> draw) const {
    const auto length = static_cast<std::size_t>(fastfood_length(outputs_, inputs_));
    if (draw.signs.size() != length || draw.permutation.size() != length ||
        draw.normals.size() != length)
      throw ShapeError(concat("Fastfood of ", outputs_, " outputs: ", draw.signs.size(), " signs, ",
                              draw.permutation.size(), " places and ", draw.normals.size(),
                              " normals, expected ", length));
    Prepared p;
    while (p.period < inputs_) p.period *= 2;
    double square = 0;
    for (const T g : draw.normals) square += static_cast<double>(g) * static_cast<double>(g);
    p.scale = static_cast<T>(1 / std::sqrt(static_cast<double>(outputs_) * square));
    p.signs = std::move(draw.signs);
    p.normals = std::move(draw.normals);
    p.from = std::move(draw.permutation);
    const auto mask = static_cast<std::int32_t>(p.period - 1);
    for (auto& place : p.from) place &= mask;
    return p;
  }
  template <class F>
  void with_draw(F&& f) const {
    if (draw_)
      f(prepared(draw_()));
    else
      f(kept_);
  }

  Index outputs_, inputs_;
  std::function<FastfoodDraw<T>()> draw_;
  Prepared kept_;
};

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/autograd/ops/impl/subspace_map_impl.hpp"
#endif
