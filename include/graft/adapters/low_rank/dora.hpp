#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/adapted.hpp"
#include "graft/adapters/adapter.hpp"
#include "graft/adapters/low_rank/lora_config.hpp"
#include "graft/adapters/low_rank/lora_embedding.hpp"
#include "graft/adapters/low_rank/lora_init.hpp"
#include "graft/adapters/root.hpp"
#include "graft/autograd/ops/rescale_columns.hpp"

namespace graft::inline v0_1 {

namespace detail {

/// Squares of the lengths of W's rows, [out]; rows of a quantised W are decoded a few at a time.
template <Linear L>
BasicTensor<ScalarOf<L>> row_squares(const L& layer) {
  using T = ScalarOf<L>;
  const Index in = layer.in_features(), out = layer.out_features();
  auto squares = BasicTensor<T>::empty({out});
  const auto take = [&](Index first, const BasicTensor<T>& rows) {
    for (Index i = 0; i < rows.rows(); ++i)
      squares[first + i] = kernels::dot(rows.data() + i * in, rows.data() + i * in, in);
  };
  if constexpr (DenseWeights<L>) {
    constexpr Index kRows = 64;
    for (Index first = 0; first < out; first += kRows) {
      auto rows = BasicTensor<T>::empty({std::min(kRows, out - first), in});
      layer.write_weight(first, rows.matrix());
      take(first, rows);
    }
  } else {
    take(0, weight_of(layer));
  }
  return squares;
}

/// ‖w_j + s (B A)_j‖² of every row j, from ‖w_j‖², the products u = A Wᵀ and the Gram matrix of A:
/// the sum is never formed. u: [rank, out], squares: [out], result [out].
template <std::floating_point T>
BasicVar<T> updated_squares(const BasicTensor<T>& squares, const BasicVar<T>& u,
                            const BasicVar<T>& a, const BasicVar<T>& b, T s) {
  const auto half = add(scale(matmul(b, matmul(a, a, Transpose::no, Transpose::yes)), s * s),
                        scale(transpose(u), 2 * s));
  const auto total = add(sum_axis(mul(b, half), 1), a.tape().constant(squares));
  return clamp(total, std::numeric_limits<T>::min(), std::numeric_limits<T>::max());
}

/// Norms that were computed last outside of training, and what they belong to.
template <std::floating_point T>
class NormCache {
 public:
  /// Row squares of the layer, computed once for it.
  template <Linear L>
  BasicTensor<T> squares(const L& root) {
    const std::lock_guard lock(mutex_);
    if constexpr (requires { root.identity(); }) {
      const std::weak_ptr<const void> now = root.identity();
      if (now.owner_before(root_) || root_.owner_before(now)) squares_ = {};
      root_ = now;
    }
    if (!squares_) {
      squares_ = row_squares(root);
      norms_ = {};
    }
    return squares_;
  }
  /// The norms for these factors, from `compute()` if they changed since the last call.
  template <class Compute>
  BasicTensor<T> norms(const BasicTensor<T>& a, const BasicTensor<T>& b, Compute&& compute) {
    const std::uint64_t key = digest(a, digest(b, 1));
    {
      const std::lock_guard lock(mutex_);
      if (norms_ && key == key_) return norms_;
    }
    auto result = compute();
    const std::lock_guard lock(mutex_);
    key_ = key;
    norms_ = result;
    return result;
  }

 private:
  static std::uint64_t digest(const BasicTensor<T>& t, std::uint64_t h) {
    using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
    for (T v : t) h = (h ^ std::bit_cast<Bits>(v)) * 0x9e3779b97f4a7c15ULL, h ^= h >> 32;
    return h;
  }
  std::mutex mutex_;
  std::weak_ptr<const void> root_;
  BasicTensor<T> squares_, norms_;
  std::uint64_t key_ = 0;
};

}  // namespace detail

/// DoRA: y = b + (m ⊘ n) ⊙ (x (W + s B A)ᵀ), n_j = ‖(W + s B A)_j‖, the length of row j.
///
/// A: [rank, in], B: [out, rank], m: [out]; trained: rank · (in + out) + out elements. With dropout
/// y = base(x) + (m ⊘ n − 1) ⊙ (drop(x) Wᵀ) + (m ⊘ n) ⊙ s (drop(x) Aᵀ) Bᵀ. The identity at the
/// start, where m = n; merges. Source: Liu et al. 2024 (arXiv:2402.09353), eq. 5 and section 4.3:
/// no gradient goes through n, unless `dora_norm_gradient` asks for it. n² is computed from ‖w_j‖²
/// and products of rank columns, without W + s B A: about `rank` more rows of the base's own
/// product. Deviations: none; n is at least the smallest positive number, so that a row of zeros
/// gives zeros. In a stack of adapters n is that of the frozen weight and the scale acts on all
/// that is below, as in PEFT. Tensors: lora_A.weight, lora_B.weight, lora_magnitude_vector.
template <std::floating_point T>
class BasicDoRA {
 public:
  using Scalar = T;
  using Config = LoRAConfig;

  /// @throws ValueError for a configuration that cannot be.
  BasicDoRA(const LoRAConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : rank_(config.rank),
        dropout_(config.dropout),
        scaling_(static_cast<T>(config.scaling())),
        norm_gradient_(config.dora_norm_gradient),
        conv_(site.conv),
        cache_(std::make_shared<detail::NormCache<T>>()) {
    config.validate();
    if (config.lora_bias) throw ValueError(concat("DoRA: lora_bias with use_dora at ", site.path));
    if (site.conv.groups > 1)
      throw ValueError(concat("DoRA: the grouped convolution ", site.path, " is not supported"));
    auto factors = initial_factors(config, site, context);
    auto m = BasicTensor<T>::zeros({site.out_features});
    if (!context.loading) {
      const BasicDenseLinear<T> layer(site.weight());
      BasicTape<T> quiet({.gradients = false, .training = false});
      m = sqrt(squared_norms(layer, detail::row_squares(layer), quiet.constant(factors.a),
                             quiet.constant(factors.b)))
              .value();
    }
    a_ = BasicParameter<T>(factors.a);
    b_ = BasicParameter<T>(factors.b);
    m_ = BasicParameter<T>(m);
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicDoRA(const LoRAConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicDoRA(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto& root = detail::root_of(base);
    const auto a = tape.parameter(a_), b = tape.parameter(b_);
    const auto g = div(tape.parameter(m_), norms(root, a, b));
    const auto offset = bias_of(root);
    const auto dropped = graft::dropout(x, dropout_);
    if (dropped.value().data() == x.value().data())
      return rescale_columns(linear_low_rank(base, x, x, a, b, scaling_), g, offset);
    const auto z =
        rescale_columns(linear_low_rank(root, dropped, dropped, a, b, scaling_), g, offset);
    return add(linear(base, x), sub(z, linear(root, dropped)));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    const auto add = [&](const char* name, const BasicParameter<T>& p, Shape shape,
                         const char* group) {
      list.push_back(
          {.name = name, .parameter = p, .index = {}, .file_shape = shape, .group = group});
    };
    const Index out = b_.shape()[0];
    add("lora_A.weight", a_, conv_.weight_shape(rank_, conv_.in_channels), "lora_A");
    add("lora_B.weight", b_, conv_.pointwise_shape(out, rank_), "lora_B");
    add("lora_magnitude_vector", m_, conv_.pointwise_shape(1, out), "magnitude");
    return list;
  }

  Index rank() const { return rank_; }
  T scaling() const { return scaling_; }
  const BasicParameter<T>& a() const { return a_; }
  const BasicParameter<T>& b() const { return b_; }
  const BasicParameter<T>& magnitude() const { return m_; }

 private:
  template <Linear L>
  BasicVar<T> squared_norms(const L& root, const BasicTensor<T>& squares, const BasicVar<T>& a,
                            const BasicVar<T>& b) const {
    auto u = linear(root, a);
    if (const auto bias = bias_of(root)) u = sub(u, u.tape().constant(bias));
    return detail::updated_squares(squares, u, a, b, scaling_);
  }
  template <Linear L>
  BasicVar<T> norms(const L& root, const BasicVar<T>& a, const BasicVar<T>& b) const {
    auto& tape = a.tape();
    const auto squares = cache_->squares(root);
    if (norm_gradient_ && tape.gradients()) return sqrt(squared_norms(root, squares, a, b));
    const auto compute = [&] {
      BasicTape<T> quiet({.gradients = false, .training = false});
      return sqrt(
                 squared_norms(root, squares, quiet.constant(a.value()), quiet.constant(b.value())))
          .value();
    };
    return tape.constant(tape.gradients() ? compute()
                                          : cache_->norms(a.value(), b.value(), compute));
  }

  Index rank_;
  double dropout_;
  T scaling_;
  bool norm_gradient_;
  ConvGeometry conv_;
  std::shared_ptr<detail::NormCache<T>> cache_;
  BasicParameter<T> a_, b_, m_;
};

/// DoRA on an embedding: y = (m ⊘ n) ⊙ (E[ids] + s A[:, ids]ᵀ Bᵀ), n_d = ‖(E + s (B A)ᵀ)_{:, d}‖
/// over the vocabulary.
///
/// A: [rank, vocabulary], B: [dim, rank], m: [dim]; trained: rank · (vocabulary + dim) + dim. The
/// padding id and dropout as in BasicLoRAEmbedding. Tensors: lora_embedding_A, lora_embedding_B,
/// lora_magnitude_vector.
template <std::floating_point T>
class BasicDoRAEmbedding {
 public:
  using Scalar = T;
  using Config = LoRAConfig;

  BasicDoRAEmbedding(const LoRAConfig& config, const EmbeddingSiteInfo<T>& site,
                     InitContext<T>& context)
      : lora_(config, site, context), norm_gradient_(config.dora_norm_gradient) {
    auto m = BasicTensor<T>::zeros({site.dim});
    if (!context.loading) {
      BasicTape<T> quiet({.gradients = false, .training = false});
      m = sqrt(squared_norms(BasicEmbeddingTable<T>(site.table()),
                             quiet.constant(lora_.a().value()), quiet.constant(lora_.b().value())))
              .value();
    }
    m_ = BasicParameter<T>(m);
  }

  BasicVar<T> apply(const BasicEmbeddingView<T>& base, BasicTape<T>& tape,
                    std::span<const std::int32_t> ids) const {
    const auto a = tape.parameter(lora_.a()), b = tape.parameter(lora_.b());
    BasicVar<T> n;
    if (norm_gradient_ && tape.gradients()) {
      n = sqrt(squared_norms(base.table(), a, b));
    } else {
      BasicTape<T> quiet({.gradients = false, .training = false});
      n = tape.constant(
          sqrt(squared_norms(base.table(), quiet.constant(a.value()), quiet.constant(b.value())))
              .value());
    }
    return rescale_columns(lora_.apply(base, tape, ids), div(tape.parameter(m_), n));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    auto list = lora_.tensors();
    list.push_back({.name = "lora_magnitude_vector",
                    .parameter = m_,
                    .index = {},
                    .file_shape = {},
                    .group = "magnitude"});
    return list;
  }

 private:
  /// A quantised table is decoded block by block.
  BasicVar<T> squared_norms(const BasicEmbeddingTable<T>& table, const BasicVar<T>& a,
                            const BasicVar<T>& b) const {
    auto& tape = a.tape();
    const Index count = table.rows(), dim = table.dim();
    constexpr Index kRows = 1024;
    auto squares = BasicTensor<T>::zeros({dim});
    BasicVar<T> u;
    for (Index first = 0; first < count; first += kRows) {
      const Index rows = std::min(kRows, count - first);
      BasicTensor<T> block;
      if (table.blocks() == nullptr) {
        block = table.dense().slice_rows(first, rows);
      } else {
        std::vector<std::int32_t> ids(static_cast<std::size_t>(rows));
        for (std::size_t i = 0; i < ids.size(); ++i)
          ids[i] = static_cast<std::int32_t>(first) + static_cast<std::int32_t>(i);
        block = table.lookup(ids);
      }
      for (Index i = 0; i < rows; ++i)
        for (Index d = 0; d < dim; ++d) squares[d] += block(i, d) * block(i, d);
      const auto part = matmul(slice(a, 1, first, rows), tape.constant(block));
      u = u ? add(u, part) : part;
    }
    return detail::updated_squares(squares, u, a, b, lora_.scaling());
  }

  BasicLoRAEmbedding<T> lora_;
  bool norm_gradient_;
  BasicParameter<T> m_;
};

using DoRA = BasicDoRA<float>;

}  // namespace graft::inline v0_1
