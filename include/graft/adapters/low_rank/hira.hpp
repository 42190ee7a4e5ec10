#pragma once

#include <algorithm>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/root.hpp"
#include "graft/autograd/ops/effective_linear.hpp"

namespace graft::inline v0_1 {

/// Configuration of HiRA, fields as PEFT's HiraConfig.
struct HiRAConfig {
  Index rank = 32;
  double dropout = 0;               ///< on the input of the branch, while training
  ConfigValue init_weights = true;  ///< true; "gaussian": A ~ N(0, 1/r); false: both N(0, 1)
  bool fan_in_fan_out = false;
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "HIRA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("hira_dropout", dropout);
    v("init_weights", init_weights);
    v("fan_in_fan_out", fan_in_fan_out);
    v("target_modules", target_modules);
    select.fields(v, {.alpha_pattern = false});
  }
  /// @throws ValueError for a rank below one.
  void validate() const {
    if (rank < 1) throw ValueError(concat("HiRA: rank ", rank, ", expected at least 1"));
  }
};

namespace detail {

/// Makes factors of the rank that A has in a file: PEFT 0.21.2 leaves rank_pattern out of account
/// for the first adapter of a layer.
template <std::floating_point T>
void take_rank_of(const Shape* a_in_file, BasicParameter<T>& a, BasicParameter<T>& b) {
  if (a_in_file == nullptr || a_in_file->rank() < 2 || a_in_file->dim(0) == a.shape()[0]) return;
  a = BasicParameter<T>(BasicTensor<T>::zeros({a_in_file->dim(0), a.shape()[1]}));
  b = BasicParameter<T>(BasicTensor<T>::zeros({b.shape()[0], a_in_file->dim(0)}));
}

}  // namespace detail

/// HiRA: y = base(x) + drop(x) (W ⊙ (B A))ᵀ, W the frozen weight below all adapters.
///
/// A: [rank, in], B: [out, rank]; trained: rank (in + out); the update has any rank. The identity
/// at the start (B = 0); merges. W ⊙ (1 + B A) is one product, built again in the backward pass.
/// Source: Huang et al. 2025 (openreview TwJrTz9cRS), eq. 4. Tensors: hira_A, hira_B; convolutions
/// as convolutions. Deviation: a new adapter has the ranks of rank_pattern. PEFT 0.21.2 gives the
/// first adapter of a layer the rank r whatever the pattern says, so that it reads files of graft
/// with a pattern as a second adapter only; its own are read here as they are.
template <std::floating_point T>
class BasicHiRA {
 public:
  using Scalar = T;
  using Config = HiRAConfig;

  BasicHiRA(const HiRAConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : dropout_(config.dropout), conv_(site.conv) {
    config.validate();
    if (conv_.groups > 1)
      throw ValueError(concat("HiRA: the grouped convolution ", site.path, " is not supported"));
    const Index in = site.in_features, out = site.out_features, rank = config.rank;
    auto a = BasicTensor<T>::zeros({rank, in}), b = BasicTensor<T>::zeros({out, rank});
    if (!context.loading) {
      auto& rng = context.generator;
      const auto* word = config.init_weights.get_if<std::string>();
      const auto* flag = config.init_weights.get_if<bool>();
      const bool gaussian = word != nullptr && *word == "gaussian";
      if (!gaussian && flag == nullptr)
        throw ValueError("HiRA: init_weights, expected true, false or gaussian");
      // PEFT draws both factors first and replaces them unless init_weights is false.
      a = detail::normal_tensor<T>(rng, a.shape(), 1);
      b = detail::normal_tensor<T>(rng, b.shape(), 1);
      if (gaussian || *flag) {
        a = gaussian && conv_.kernel.empty()
                ? detail::normal_tensor<T>(rng, a.shape(), 1.0 / static_cast<double>(rank))
                : detail::kaiming_uniform_tensor<T>(rng, a.shape(), in);
        std::fill(b.begin(), b.end(), T{0});
      }
    }
    a_ = BasicParameter<T>(a);
    b_ = BasicParameter<T>(b);
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicHiRA(const HiRAConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicHiRA(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    const auto& root = detail::root_of(base);
    const auto dropped = graft::dropout(x, dropout_);
    // Without dropout and adapters below, the frozen product is part of the same one.
    const bool whole =
        dropped.value().data() == x.value().data() && !detail::has_adapters_below(base);
    auto y = effective_linear(dropped, whole ? bias_of(root) : BasicTensor<T>{},
                              [&root, whole, a = a_, b = b_](BasicTape<T>& tape) {
                                auto product = matmul(tape.parameter(b), tape.parameter(a));
                                if (whole) product = add_scalar(product, 1);
                                return mul(product, tape.constant(weight_of(root)));
                              });
    return whole ? y : add(linear(base, x), y);
  }
  void before_load(const CheckpointShapes& shapes) {
    detail::take_rank_of(shapes("hira_A"), a_, b_);
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(2);
    list[0].name = "hira_A";
    list[0].parameter = a_;
    list[1].name = "hira_B";
    list[1].parameter = b_;
    const Index out = b_.shape()[0], rank = b_.shape()[1];
    list[0].file_shape = conv_.weight_shape(rank, conv_.in_channels);
    list[1].file_shape = conv_.pointwise_shape(out, rank);
    return list;
  }

 private:
  double dropout_;
  ConvGeometry conv_;
  BasicParameter<T> a_, b_;
};

/// HiRA on an embedding: y = E[ids] ⊙ (1 + A[:, ids]ᵀ Bᵀ) for the frozen table E.
///
/// A: [rank, vocabulary] = 0, B: [dim, rank] ~ N(0, 1). Dropout does not apply, as in PEFT.
/// Tensors: hira_embedding_A, hira_embedding_B.
template <std::floating_point T>
class BasicHiRAEmbedding {
 public:
  using Scalar = T;
  using Config = HiRAConfig;

  BasicHiRAEmbedding(const HiRAConfig& config, const EmbeddingSiteInfo<T>& site,
                     InitContext<T>& context) {
    config.validate();
    auto a = BasicTensor<T>::zeros({config.rank, site.vocabulary}),
         b = BasicTensor<T>::zeros({site.dim, config.rank});
    if (!context.loading) {
      const auto* flag = config.init_weights.get_if<bool>();
      context.generator.normal(a.data(), a.size());
      context.generator.normal(b.data(), b.size());
      if (flag == nullptr || *flag) {
        std::fill(a.begin(), a.end(), T{0});
        context.generator.normal(b.data(), b.size());
      }
    }
    a_ = BasicParameter<T>(a);
    b_ = BasicParameter<T>(b);
  }
  BasicVar<T> apply(const BasicEmbeddingView<T>& base, BasicTape<T>& tape,
                    std::span<const std::int32_t> ids) const {
    const auto a = gather_rows(transpose(tape.parameter(a_)),
                               std::vector<std::int32_t>(ids.begin(), ids.end()));
    const auto factor = matmul(a, tape.parameter(b_), Transpose::no, Transpose::yes);
    return add(base(tape, ids), mul(factor, tape.constant(base.table().lookup(ids))));
  }
  void before_load(const CheckpointShapes& shapes) {
    detail::take_rank_of(shapes("hira_embedding_A"), a_, b_);
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(2);
    list[0].name = "hira_embedding_A";
    list[0].parameter = a_;
    list[1].name = "hira_embedding_B";
    list[1].parameter = b_;
    return list;
  }

 private:
  BasicParameter<T> a_, b_;
};

/// HiRA on linear layers, convolutions and embeddings.
template <std::floating_point T>
struct HiRAMethod {
  using Scalar = T;
  using Config = HiRAConfig;
  static MethodInfo info() {
    return {.peft_type = "HIRA",
            .name = "HiRA",
            .family = "low_rank",
            .paper = "openreview TwJrTz9cRS",
            .sites = "linear, embedding, conv",
            .parameters = "r (in + out)"};
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    return linear_part(BasicHiRA<T>(config, site, context));
  }
  static std::shared_ptr<EmbeddingPart<T>> embedding(const Config& config,
                                                     const EmbeddingSiteInfo<T>& site,
                                                     InitContext<T>& context) {
    return embedding_part(BasicHiRAEmbedding<T>(config, site, context));
  }
};

using HiRA = BasicHiRA<float>;

}  // namespace graft::inline v0_1
