#pragma once

#include <cmath>
#include <memory>
#include <span>
#include <vector>

#include "graft/adapters/adapter.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/orthogonal/cayley.hpp"
#include "graft/autograd/ops/linalg.hpp"

namespace graft::inline v0_1 {

/// Configuration of OFT, fields as PEFT's OFTConfig.
struct OFTConfig {
  Index blocks = 0;  ///< r, number of blocks; exactly one of it and the block size is not zero
  Index block_size = 32;
  double module_dropout = 0;  ///< share of the blocks that is left out, while training
  bool coft = false;          ///< blocks are kept near the identity
  double eps = 6e-5;          ///< how near
  bool block_share = false;   ///< one rotation for all blocks
  bool use_cayley_neumann = true;
  Index num_cayley_neumann_terms = 5;
  std::string cayley_sign = "minus";  ///< of Q in the exact transform; plus: as the Neumann series
  bool fan_in_fan_out = false;
  bool init_weights = true;  ///< zeros; false: N(0, 0.1)
  std::string bias = "none";
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "OFT";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", blocks);
    v("oft_block_size", block_size);
    v("module_dropout", module_dropout);
    v("coft", coft);
    v("eps", eps);
    v("block_share", block_share);
    v("use_cayley_neumann", use_cayley_neumann);
    v("num_cayley_neumann_terms", num_cayley_neumann_terms);
    optional_field(v, "cayley_sign", cayley_sign, "minus");
    v("fan_in_fan_out", fan_in_fan_out);
    v("init_weights", init_weights);
    v("bias", bias);
    v("target_modules", target_modules);
    select.fields(v, {.rank_pattern = false, .alpha_pattern = false});
  }
  /// @throws ValueError unless exactly one of r and oft_block_size is positive; for an unknown sign
  /// and a dropout outside of [0, 1].
  void validate() const {
    if ((blocks > 0) == (block_size > 0) || blocks < 0 || block_size < 0)
      throw ValueError(concat("OFT: r ", blocks, " and oft_block_size ", block_size,
                              ", expected exactly one above zero"));
    if (num_cayley_neumann_terms < 1)
      throw ValueError(concat("OFT: num_cayley_neumann_terms ", num_cayley_neumann_terms,
                              ", expected at least 1"));
    if (cayley_sign != "minus" && cayley_sign != "plus")
      throw ValueError(concat("OFT: cayley_sign '", cayley_sign, "', expected minus or plus"));
    if (!(module_dropout >= 0 && module_dropout <= 1))
      throw ValueError(concat("OFT: module_dropout ", module_dropout, ", expected in [0, 1]"));
  }
};

/// COFT's projection of stored blocks q [K, b (b − 1) / 2]: one whose skew matrix has a Frobenius
/// norm above ε / √K (√2 times that of the stored numbers) is shortened to it. The same tensor if
/// none is. Source: Qiu et al. 2023 (arXiv:2306.07280), section 4.2.
template <std::floating_point T>
BasicTensor<T> coft_projection(const BasicTensor<T>& q, double eps) {
  const Index blocks = q.rows(), entries = q.cols();
  const double limit = eps / std::sqrt(static_cast<double>(blocks));
  auto projected = q;
  for (Index k = 0; k < blocks; ++k) {
    double square = 0;
    for (Index i = 0; i < entries; ++i)
      square += 2 * static_cast<double>(q(k, i)) * static_cast<double>(q(k, i));
    const double length = std::sqrt(square);
    if (length <= limit) continue;
    if (projected.data() == q.data()) projected = q.clone();
    for (Index i = 0; i < entries; ++i)
      projected(k, i) = static_cast<T>(static_cast<double>(q(k, i)) * (limit / length));
  }
  return projected;
}

/// OFT's rotation: x diag(R_0, R_1, …) with R_k from a skew matrix Q_k whose strict upper triangle
/// is trained.
///
/// Exact: R = (I − Q)(I + Q)⁻¹ (Cayley), with cayley_sign plus (I + Q)(I − Q)⁻¹. Neumann with n
/// terms: R = I + 2 Q + … + 2 Qⁿ⁻² + Qⁿ⁻¹ (n = 3 as n = 4), near (I + Q)(I − Q)⁻¹: the default sign
/// of Q differs between the two, as in PEFT. While training ⌊module_dropout · blocks⌋ blocks, drawn
/// anew each time, are the identity; not where all share one. Trained: blocks · b (b − 1) / 2, with
/// b the block size.
template <std::floating_point T>
class BasicOFTRotation {
 public:
  BasicOFTRotation(const OFTConfig& config, Index width, InitContext<T>& context)
      : config_(config) {
    config.validate();
    const Index wanted = config.blocks > 0 ? config.blocks : config.block_size;
    const Index divisor = nearest_divisor(width, wanted);
    size_ = config.blocks > 0 ? width / divisor : divisor;
    blocks_ = width / size_;
    const Index rotations = config.block_share ? 1 : blocks_, entries = size_ * (size_ - 1) / 2;
    auto q = BasicTensor<T>::zeros({rotations, entries});
    if (!config.init_weights && !context.loading)
      context.generator.normal(q.data(), q.size(), 0, 0.1);
    q_ = BasicParameter<T>(std::move(q));
    for (Index k = 0; k < rotations; ++k)
      for (Index i = 0; i < size_; ++i)
        for (Index j = i + 1; j < size_; ++j) positions_.push_back((k * size_ + i) * size_ + j);
  }
  const BasicParameter<T>& parameter() const { return q_; }
  Index blocks() const { return blocks_; }
  Index block_size() const { return size_; }

  BasicVar<T> operator()(const BasicVar<T>& x) const {
    auto r = rotations(x.tape());
    const Index rows = x.rows();
    if (r.dim(0) == 1)
      return reshape(matmul(reshape(x, {rows * blocks_, size_}), reshape(r, {size_, size_})),
                     x.shape());
    if (const auto mask = block_mask(x.tape())) {
      auto kept = BasicTensor<T>::empty({blocks_, 1, 1});
      auto replaced = BasicTensor<T>::zeros({blocks_, size_, size_});
      for (Index k = 0; k < blocks_; ++k) {
        const bool drop = mask[k] != T{0};
        kept[k] = drop ? T{0} : T{1};
        if (drop)
          for (Index i = 0; i < size_; ++i) replaced[(k * size_ + i) * size_ + i] = T{1};
      }
      r = add(mul(r, x.tape().constant(kept)), x.tape().constant(replaced));
    }
    const auto by_block = permute(reshape(x, {rows, blocks_, size_}), {1, 0, 2});
    return reshape(permute(matmul(by_block, r), {1, 0, 2}), x.shape());
  }
  /// R: [rotations, b, b].
  BasicVar<T> rotations(BasicTape<T>& tape) const {
    if (config_.coft) {
      auto projected = coft_projection(q_.value(), config_.eps);
      if (projected.data() != q_.value().data()) q_.assign(std::move(projected));
    }
    const Index n = q_.shape()[0];
    const auto upper = scatter(tape.parameter(q_), positions_, {n, size_, size_});
    const auto q = sub(upper, permute(upper, {0, 2, 1}));
    if (config_.use_cayley_neumann)
      return detail::cayley_neumann(q, config_.num_cayley_neumann_terms);
    const auto one = tape.constant(BasicTensor<T>::identity(size_).reshape({1, size_, size_}));
    return config_.cayley_sign == "plus" ? matmul(add(one, q), inverse(sub(one, q)))
                                         : matmul(sub(one, q), inverse(add(one, q)));
  }
  /// Blocks that are the identity while training, [blocks] of 0 and 1, in place of drawn ones;
  /// empty: drawn.
  void set_block_mask(BasicTensor<T> mask) { mask_ = std::move(mask); }

 private:
  /// Which blocks rest in this pass; empty: none.
  BasicTensor<T> block_mask(BasicTape<T>& tape) const {
    if (!tape.training() || config_.block_share) return {};
    if (mask_) return mask_;
    const auto resting =
        static_cast<std::size_t>(config_.module_dropout * static_cast<double>(blocks_));
    if (resting == 0) return {};
    TorchGenerator generator(tape.next_random_key());
    auto order = generator.randperm(blocks_);
    order.resize(resting);
    auto mask = BasicTensor<T>::zeros({blocks_});
    for (const auto k : order) mask[k] = T{1};
    return mask;
  }
  static Index nearest_divisor(Index width, Index wanted) {
    for (Index step = 0; step < width; ++step) {
      const Index above = wanted + step, below = wanted - step;
      if (below >= 1 && below <= width && width % below == 0) return below;
      if (above <= width && width % above == 0) return above;
    }
    return width;
  }

  OFTConfig config_;
  Index blocks_ = 1, size_ = 1;
  BasicParameter<T> q_;
  BasicTensor<T> mask_;
  std::vector<Index> positions_;
};

/// OFT: y = base(x R), R orthogonal and block-diagonal, see BasicOFTRotation.
///
/// Trained: in/b · b (b − 1) / 2 (one block with block_share). The identity at the start; merges: W
/// Rᵀ. The number of blocks moves to the nearest that divides in. Source: Qiu et al. 2023
/// (arXiv:2306.07280); input-centred form and Neumann series: Qiu et al. 2025 (arXiv:2506.19847).
/// Deviations from PEFT: convolutions rotate patches for every kernel, where PEFT's unmerged pass
/// adds overlapping patches up; module_dropout drops blocks, where PEFT 0.21.2 ignores it. Tensor:
/// oft_R.weight; files with oft_R are read.
template <std::floating_point T>
class BasicOFT {
 public:
  using Scalar = T;
  using Config = OFTConfig;
  static constexpr bool kInputInOrder = true;  ///< several rotate the input one after the other

  BasicOFT(const OFTConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : rotation_(config, site.in_features, context) {}
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicOFT(const OFTConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicOFT(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    return linear(base, rotation_(x));
  }
  std::vector<AdapterTensor<T>> tensors() const { return named(name_); }
  std::vector<AdapterTensor<T>> file_tensors() const { return named(kName); }
  /// Files of others than PEFT call the tensor oft_R.
  void before_load(const CheckpointShapes& shapes) {
    name_ = shapes(kName) == nullptr && shapes("oft_R") != nullptr ? "oft_R" : kName;
  }
  const BasicOFTRotation<T>& rotation() const { return rotation_; }
  BasicOFTRotation<T>& rotation() { return rotation_; }

 private:
  static constexpr const char* kName = "oft_R.weight";
  std::vector<AdapterTensor<T>> named(const char* name) const {
    std::vector<AdapterTensor<T>> list;
    list.push_back(
        {.name = name, .parameter = rotation_.parameter(), .index = {}, .file_shape = {}});
    return list;
  }

  const char* name_ = kName;
  BasicOFTRotation<T> rotation_;
};

/// OFT of an embedding: rows are rotated, E R. Tensor: oft_embedding_R.weight.
template <std::floating_point T>
class BasicOFTEmbedding {
 public:
  using Scalar = T;
  using Config = OFTConfig;

  BasicOFTEmbedding(const OFTConfig& config, const EmbeddingSiteInfo<T>& site,
                    InitContext<T>& context)
      : rotation_(config, site.dim, context) {}
  BasicVar<T> apply(const BasicEmbeddingView<T>& base, BasicTape<T>& tape,
                    std::span<const std::int32_t> ids) const {
    return rotation_(base(tape, ids));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    list.push_back({.name = "oft_embedding_R.weight",
                    .parameter = rotation_.parameter(),
                    .index = {},
                    .file_shape = {}});
    return list;
  }

 private:
  BasicOFTRotation<T> rotation_;
};

template <std::floating_point T>
struct OFTMethod {
  using Scalar = T;
  using Config = OFTConfig;
  static MethodInfo info() {
    return {.peft_type = "OFT",
            .name = "OFT",
            .family = "orthogonal",
            .paper = "arXiv:2306.07280",
            .sites = "linear, embedding, conv",
            .parameters = "in (b - 1) / 2, b = oft_block_size",
            .embedding_parameters = "out (b - 1) / 2, b = oft_block_size"};
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    return linear_part(BasicOFT<T>(config, site, context));
  }
  static std::shared_ptr<EmbeddingPart<T>> embedding(const Config& config,
                                                     const EmbeddingSiteInfo<T>& site,
                                                     InitContext<T>& context) {
    return embedding_part(BasicOFTEmbedding<T>(config, site, context));
  }
};

using OFT = BasicOFT<float>;

}  // namespace graft::inline v0_1
