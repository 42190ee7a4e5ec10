#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"
#include "graft/tensor/decompositions.hpp"

namespace graft::inline v0_1 {

/// Configuration of TinyLoRA, fields as PEFT's TinyLoraConfig.
struct TinyLoRAConfig {
  Index rank = 2;            ///< r, at most the smaller side of the weight
  Index vector_length = 64;  ///< u, trained elements of a group
  double weight_tying = 0;   ///< share of layers that lose a vector of their own, 0 to 1
  std::uint64_t projection_seed = 42;
  bool save_projection = true;  ///< false: files hold no projection, the seed makes it
  double init_v_bound = 0.02;
  ConfigValue init_weights = true;  ///< true: zeros, "uniform": U(±init_v_bound)
  double dropout = 0;               ///< on the input of the branch, while training
  bool fan_in_fan_out = false;
  std::string bias = "none";
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "TINYLORA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("u", vector_length);
    v("weight_tying", weight_tying);
    v("projection_seed", projection_seed);
    v("save_projection", save_projection);
    v("init_v_bound", init_v_bound);
    v("init_weights", init_weights);
    v("tinylora_dropout", dropout);
    v("fan_in_fan_out", fan_in_fan_out);
    v("bias", bias);
    v("target_modules", target_modules);
    select.fields(v, {.exclude_modules = false, .rank_pattern = false, .alpha_pattern = false});
  }
  /// @throws ValueError for sizes below one or a share outside of [0, 1].
  void validate() const {
    if (rank < 1 || vector_length < 1)
      throw ValueError(
          concat("TinyLoRA: r ", rank, " and u ", vector_length, ", expected at least 1"));
    if (!(weight_tying >= 0 && weight_tying <= 1))
      throw ValueError(concat("TinyLoRA: weight_tying ", weight_tying, ", expected 0 to 1"));
  }
};

namespace detail {

/// What TinyLoRA has at a site of any kind: A = √S V_rᵀ and B = U_r √S of the frozen weight, the
/// random projection P and the vector v of the site's group; R = Σ v_i P_i.
template <std::floating_point T>
struct TinyLoRACore {
  /// `number` of `count` sites; weight: [rows, cols].
  TinyLoRACore(const TinyLoRAConfig& config, Index rows, Index cols, Index number, Index count,
               const std::function<BasicTensor<T>()>& weight, InitContext<T>& context)
      : rank(std::min(config.rank, std::min(rows, cols))), save_projection(config.save_projection) {
    const Index groups = std::max<Index>(
        1,
        static_cast<Index>(std::nearbyint(static_cast<double>(count) * (1 - config.weight_tying))));
    const Index size = std::max<Index>(1, count / groups);
    name = concat("tinylora_v.", std::min(number / size, groups - 1));
    v = context.shared.get(name, [&] {
      auto value = BasicTensor<T>::zeros({config.vector_length});
      const auto* word = config.init_weights.get_if<std::string>();
      if (!context.loading && word != nullptr && *word == "uniform")
        context.generator.uniform(value.data(), value.size(), -config.init_v_bound,
                                  config.init_v_bound);
      return value;
    });
    auto left = BasicTensor<T>::zeros({rows, rank}), right = BasicTensor<T>::zeros({rank, cols});
    if (!context.loading) {
      const auto d = svd(weight());
      for (Index k = 0; k < rank; ++k) {
        const T root = std::sqrt(d.s[k]);
        for (Index i = 0; i < rows; ++i) left(i, k) = d.u(i, k) * root;
        for (Index j = 0; j < cols; ++j) right(k, j) = root * d.v(j, k);
      }
    }
    a = BasicParameter<T>(right, false);
    b = BasicParameter<T>(left, false);
    TorchGenerator generator(config.projection_seed + static_cast<std::uint64_t>(number));
    // Files need not hold them, so both precisions have the same.
    p = BasicParameter<T>(normal_tensor<float>(generator, {config.vector_length, rank, rank},
                                               1 / std::sqrt(static_cast<double>(rank)))
                              .template cast<T>(),
                          false);
  }
  /// R, [rank, rank].
  BasicVar<T> mixed(BasicTape<T>& tape) const {
    const Index u = v.size();
    const auto flat = tape.constant(p.value().reshape({u, rank * rank}));
    return reshape(matmul(reshape(tape.parameter(v), {1, u}), flat), {rank, rank});
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(4);
    list[0].name = name;
    list[0].parameter = v;
    list[0].scope = AdapterTensor<T>::Scope::model;
    list[1].name = "tinylora_A";
    list[1].parameter = a;
    list[2].name = "tinylora_B";
    list[2].parameter = b;
    list[3].name = "tinylora_P";
    list[3].parameter = p;
    list[3].saved = save_projection;
    return list;
  }

  Index rank;
  bool save_projection;
  std::string name;
  BasicParameter<T> v, a, b, p;
};

}  // namespace detail

/// TinyLoRA: y = base(x) + ((drop(x) Aᵀ) Rᵀ) Bᵀ, R = Σ_i v_i P_i.
///
/// A = √S V_rᵀ: [r, in] and B = U_r √S: [out, r] from the SVD of W, frozen and saved; P: [u, r, r]
/// ~ N(0, 1 / r) from projection_seed plus the number of the site, frozen; v: [u], one for a group
/// of sites; trained: u a group. The identity at the start (v = 0); merges. Source:
/// arXiv:2602.04118 in the form of PEFT. Tensors: tinylora_A, tinylora_B, tinylora_P,
/// `base_model.tinylora_v.<group>`.
template <std::floating_point T>
class BasicTinyLoRA {
 public:
  using Scalar = T;
  using Config = TinyLoRAConfig;

  BasicTinyLoRA(const TinyLoRAConfig& config, const LinearSiteInfo<T>& site,
                InitContext<T>& context)
      : dropout_((config.validate(), config.dropout)),
        core_(config, site.out_features, site.in_features, number_of(site),
              std::max<Index>(
                  1, static_cast<Index>(site.all_sites.size() + site.all_embeddings.size())),
              site.weight, context) {}
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicTinyLoRA(const TinyLoRAConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicTinyLoRA(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto ra = matmul(core_.mixed(tape), tape.parameter(core_.a));
    return linear_low_rank(base, x, graft::dropout(x, dropout_), ra, tape.parameter(core_.b), T{1});
  }
  std::vector<AdapterTensor<T>> tensors() const { return core_.tensors(); }

 private:
  static Index number_of(const LinearSiteInfo<T>& site) {
    Index number = 0;
    for (const auto& [path, shape] : site.all_sites) {
      if (path == site.path) break;
      ++number;
    }
    return number + static_cast<Index>(site.all_embeddings.size());
  }
  double dropout_;
  detail::TinyLoRACore<T> core_;
};

/// TinyLoRA on an embedding: y = E[ids] + (B[ids] R) A, with A: [r, dim] and B: [vocabulary, r]
/// from the SVD of E.
template <std::floating_point T>
class BasicTinyLoRAEmbedding {
 public:
  using Scalar = T;
  using Config = TinyLoRAConfig;

  BasicTinyLoRAEmbedding(const TinyLoRAConfig& config, const EmbeddingSiteInfo<T>& site,
                         InitContext<T>& context)
      : core_((config.validate(), config), site.vocabulary, site.dim, number_of(site),
              std::max<Index>(
                  1, static_cast<Index>(site.all_sites.size() + site.all_embeddings.size())),
              site.table, context) {}

  BasicVar<T> apply(const BasicEmbeddingView<T>& base, BasicTape<T>& tape,
                    std::span<const std::int32_t> ids) const {
    const auto rows =
        gather_rows(tape.parameter(core_.b), std::vector<std::int32_t>(ids.begin(), ids.end()));
    return add(base(tape, ids), matmul(matmul(rows, core_.mixed(tape)), tape.parameter(core_.a)));
  }
  std::vector<AdapterTensor<T>> tensors() const { return core_.tensors(); }

 private:
  static Index number_of(const EmbeddingSiteInfo<T>& site) {
    Index number = 0;
    for (const auto& [path, shape] : site.all_embeddings) {
      if (path == site.path) break;
      ++number;
    }
    return number;
  }
  detail::TinyLoRACore<T> core_;
};

/// TinyLoRA on linear layers and embeddings.
template <std::floating_point T>
struct TinyLoRAMethod {
  using Scalar = T;
  using Config = TinyLoRAConfig;
  static MethodInfo info() {
    return {.peft_type = "TINYLORA",
            .name = "TinyLoRA",
            .family = "low_rank",
            .paper = "arXiv:2602.04118",
            .sites = "linear, embedding",
            .parameters = "once u; a group of layers"};
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    return linear_part(BasicTinyLoRA<T>(config, site, context));
  }
  static std::shared_ptr<EmbeddingPart<T>> embedding(const Config& config,
                                                     const EmbeddingSiteInfo<T>& site,
                                                     InitContext<T>& context) {
    return embedding_part(BasicTinyLoRAEmbedding<T>(config, site, context));
  }
};

using TinyLoRA = BasicTinyLoRA<float>;

}  // namespace graft::inline v0_1
