#pragma once

#include <cmath>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "graft/adapters/adapter.hpp"
#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"
#include "graft/autograd/ops/frozen_matmul.hpp"

namespace graft::inline v0_1 {

/// Configuration of VeRA, fields as PEFT's VeraConfig.
struct VeRAConfig {
  Index rank = 256;
  std::uint64_t projection_prng_key = 0;  ///< seed of the shared projections
  bool save_projection = true;            ///< false: files hold no projections, the key makes them
  double dropout = 0;                     ///< on the input of the branch, while training
  double d_initial = 0.1;                 ///< first value of lambda_d
  bool init_weights = true;               ///< false: lambda_b = 1, lambda_d ~ N(0, 1)
  bool fan_in_fan_out = false;
  std::string bias = "none";
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "VERA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("projection_prng_key", projection_prng_key);
    v("save_projection", save_projection);
    v("vera_dropout", dropout);
    v("d_initial", d_initial);
    v("init_weights", init_weights);
    v("fan_in_fan_out", fan_in_fan_out);
    v("bias", bias);
    v("target_modules", target_modules);
    select.fields(v, {.exclude_modules = false, .rank_pattern = false, .alpha_pattern = false});
  }
  /// @throws ValueError for a rank below one.
  void validate() const {
    if (rank < 1) throw ValueError(concat("VeRA: rank ", rank, ", expected at least 1"));
  }
};

/// Configuration of PVeRA, fields as PEFT's PveraConfig.
struct PVeRAConfig {
  Index rank = 256;
  std::uint64_t projection_prng_key = 0;
  bool save_projection = true;
  double dropout = 0;
  double d_initial = 0.1;
  bool init_weights = true;
  bool sample_at_inference = false;                  ///< draw the code outside of training too
  std::optional<std::uint64_t> generator_seed = {};  ///< of the codes; nothing: the tape's seed
  bool fan_in_fan_out = false;
  std::string bias = "none";
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "PVERA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("projection_prng_key", projection_prng_key);
    v("save_projection", save_projection);
    v("pvera_dropout", dropout);
    v("d_initial", d_initial);
    v("init_weights", init_weights);
    v("sample_at_inference", sample_at_inference);
    v("generator_seed", generator_seed);
    v("fan_in_fan_out", fan_in_fan_out);
    v("bias", bias);
    v("target_modules", target_modules);
    select.fields(v, {.exclude_modules = false, .rank_pattern = false, .alpha_pattern = false});
  }
  /// @throws ValueError for a rank below one.
  void validate() const {
    if (rank < 1) throw ValueError(concat("PVeRA: rank ", rank, ", expected at least 1"));
  }
};

namespace detail {

/// Largest out and in over the sites of an adapter.
template <std::floating_point T>
Shape largest_site(const LinearSiteInfo<T>& site) {
  Shape size{site.out_features, site.in_features};
  for (const auto& [path, shape] : site.all_sites)
    for (int i = 0; i < 2; ++i) size[i] = std::max(size[i], shape[i]);
  return size;
}

/// The two frozen projections that all layers of VeRA share: a [rows_a, in], b [out, rank], drawn
/// one after the other as U(±√(6 / columns)) from a key, in single precision whatever T is: files
/// need not hold them.
template <std::floating_point T>
struct SharedProjections {
  SharedProjections(const char* prefix, Index rows_a, Index rank, std::uint64_t key,
                    const LinearSiteInfo<T>& site, SharedParameters<T>& shared)
      : names{std::string(prefix) + "_A", std::string(prefix) + "_B"} {
    TorchGenerator generator(key);
    const Shape size = largest_site(site);
    const auto make = [&](Index rows, Index cols) {
      return kaiming_uniform_tensor<float>(generator, {rows, cols}, cols, 0).template cast<T>();
    };
    a = shared.get(
        names[0], [&] { return make(rows_a, size[1]); }, false);
    b = shared.get(
        names[1], [&] { return make(size[0], rank); }, false);
  }
  void append(std::vector<AdapterTensor<T>>& list, bool saved) const {
    for (const bool first : {true, false}) {
      AdapterTensor<T> t;
      t.name = names[first ? 0 : 1];
      t.parameter = first ? a : b;
      t.saved = saved;
      t.scope = AdapterTensor<T>::Scope::model;
      list.push_back(std::move(t));
    }
  }
  /// A second adapter of PEFT keeps the projections of the first, which may be larger than its own
  /// layers need.
  void before_load(const CheckpointShapes& shapes) const {
    for (const bool first : {true, false}) {
      const auto& projection = first ? a : b;
      const Shape own = projection.shape();
      const auto* shape = shapes(names[first ? 0 : 1]);
      if (shape == nullptr || shape->rank() != 2 || *shape == own) continue;
      if (shape->dim(0) >= own[0] && shape->dim(1) >= own[1])
        projection.assign(BasicTensor<T>::zeros(*shape));
    }
  }
  std::string names[2];
  BasicParameter<T> a, b;
};

/// First values of lambda_d and lambda_b. The normal numbers are drawn in any case, as PEFT draws
/// them.
template <std::floating_point T>
std::pair<BasicParameter<T>, BasicParameter<T>> vera_vectors(Index codes, Index out,
                                                             double d_initial, bool init_weights,
                                                             InitContext<T>& context) {
  auto d = BasicTensor<T>::full({codes}, static_cast<T>(d_initial));
  auto b = BasicTensor<T>::zeros({out});
  if (!context.loading) {
    const auto drawn = normal_tensor<T>(context.generator, {codes}, 1);
    if (!init_weights) {
      d = drawn;
      b.fill(1);
    }
  }
  return {BasicParameter<T>(d), BasicParameter<T>(b)};
}

}  // namespace detail

/// VeRA: y = base(x) + λ_b ⊙ ((λ_d ⊙ (drop(x) A'ᵀ)) B'ᵀ) with A' = A[:, :in], B' = B[:out].
///
/// A: [rank, largest in], B: [largest out, rank], frozen, random, one pair for the model; λ_d:
/// [rank], λ_b: [out]; trained: rank + out elements. The identity at the start (λ_b = 0); merges.
/// Source: Kopiczko et al. 2024 (arXiv:2310.11454), eq. 2; drawn as in PEFT from
/// projection_prng_key. Tensors: vera_lambda_d, vera_lambda_b; base_model.vera_A, base_model.vera_B
/// with save_projection.
template <std::floating_point T>
class BasicVeRA {
 public:
  using Scalar = T;
  using Config = VeRAConfig;

  static MethodInfo info() {
    return {.peft_type = "VERA",
            .name = "VeRA",
            .family = "low_rank",
            .paper = "arXiv:2310.11454",
            .sites = "linear",
            .parameters = "r + out"};
  }

  BasicVeRA(const VeRAConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : rank_((config.validate(), config.rank)),
        dropout_(config.dropout),
        saved_(config.save_projection),
        projections_("vera", rank_, rank_, config.projection_prng_key, site, context.shared) {
    std::tie(d_, b_) = detail::vera_vectors<T>(rank_, site.out_features, config.d_initial,
                                               config.init_weights, context);
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicVeRA(const VeRAConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicVeRA(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto h = frozen_matmul(graft::dropout(x, dropout_), projections_.a.value(), rank_,
                                 x.cols(), Transpose::yes);
    const auto u = frozen_matmul(mul(h, tape.parameter(d_)), projections_.b.value(), b_.size(),
                                 rank_, Transpose::yes);
    return add(linear(base, x), mul(u, tape.parameter(b_)));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(2);
    list[0].name = "vera_lambda_b";
    list[0].parameter = b_;
    list[1].name = "vera_lambda_d";
    list[1].parameter = d_;
    projections_.append(list, saved_);
    return list;
  }
  void before_load(const CheckpointShapes& shapes) { projections_.before_load(shapes); }

 private:
  Index rank_;
  double dropout_;
  bool saved_;
  detail::SharedProjections<T> projections_;
  BasicParameter<T> d_, b_;
};

/// PVeRA: VeRA with a random code, y = base(x) + λ_b ⊙ (z B'ᵀ), z = μ + ε ⊙ exp(½ v), where (μ, v)
/// are the halves of λ_d ⊙ (drop(x) A'ᵀ) and ε ~ N(0, 1).
///
/// A: [2 rank, largest in], B: [largest out, rank], frozen and shared; λ_d: [2 rank], λ_b: [out];
/// trained: 2 rank + out. Outside of training z = μ unless sample_at_inference. The identity at the
/// start; merges with z = μ. Source: arXiv:2512.07703, in the form of PEFT.
/// Tensors: pvera_lambda_d, pvera_lambda_b; base_model.pvera_A, base_model.pvera_B.
template <std::floating_point T>
class BasicPVeRA {
 public:
  using Scalar = T;
  using Config = PVeRAConfig;

  static MethodInfo info() {
    return {.peft_type = "PVERA",
            .name = "PVeRA",
            .family = "low_rank",
            .paper = "arXiv:2512.07703",
            .sites = "linear",
            .parameters = "2 r + out"};
  }

  BasicPVeRA(const PVeRAConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : rank_((config.validate(), config.rank)),
        dropout_(config.dropout),
        saved_(config.save_projection),
        sample_(config.sample_at_inference),
        projections_("pvera", 2 * rank_, rank_, config.projection_prng_key, site, context.shared) {
    if (config.generator_seed) codes_ = std::make_shared<Codes>(*config.generator_seed);
    std::tie(d_, b_) = detail::vera_vectors<T>(2 * rank_, site.out_features, config.d_initial,
                                               config.init_weights, context);
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicPVeRA(const PVeRAConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicPVeRA(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto code = mul(frozen_matmul(graft::dropout(x, dropout_), projections_.a.value(),
                                        2 * rank_, x.cols(), Transpose::yes),
                          tape.parameter(d_));
    auto z = slice(code, -1, 0, rank_);
    if (tape.training() || sample_) {
      auto noise = BasicTensor<T>::empty(z.shape());
      if (codes_) {
        const std::lock_guard lock(codes_->mutex);
        codes_->generator.normal(noise.data(), noise.size());
      } else {
        TorchGenerator generator(tape.next_random_key());
        generator.normal(noise.data(), noise.size());
      }
      z = add(z, mul(tape.constant(noise), exp(scale(slice(code, -1, rank_, rank_), T{0.5}))));
    }
    const auto u = frozen_matmul(z, projections_.b.value(), b_.size(), rank_, Transpose::yes);
    return add(linear(base, x), mul(u, tape.parameter(b_)));
  }
  std::string merge_reason() const {
    return sample_ ? "PVeRA with sample_at_inference draws a code for every input" : "";
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(2);
    list[0].name = "pvera_lambda_b";
    list[0].parameter = b_;
    list[1].name = "pvera_lambda_d";
    list[1].parameter = d_;
    projections_.append(list, saved_);
    return list;
  }
  void before_load(const CheckpointShapes& shapes) { projections_.before_load(shapes); }

 private:
  struct Codes {
    explicit Codes(std::uint64_t seed) : generator(seed) {}
    std::mutex mutex;
    TorchGenerator generator;
  };

  Index rank_;
  double dropout_;
  bool saved_, sample_;
  std::shared_ptr<Codes> codes_;
  detail::SharedProjections<T> projections_;
  BasicParameter<T> d_, b_;
};

using VeRA = BasicVeRA<float>;
using PVeRA = BasicPVeRA<float>;

}  // namespace graft::inline v0_1
