#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/effective_weight.hpp"
#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/low_rank/glora_paths.hpp"
#include "graft/adapters/method.hpp"
#include "graft/base/splitmix.hpp"

namespace graft::inline v0_1 {

/// Configuration of GLoRA in its form as a supernet.
struct GLoRASupernetConfig {
  Index rank = 4;
  /// Those of all layers but the ones in `layer_paths`, see glora::choices.
  glora::Paths paths = {
      {"A", "lora"}, {"B", "lora"}, {"C", "lora"}, {"D", "vector"}, {"E", "vector"}};
  std::map<std::string, glora::Paths> layer_paths = {};  ///< by the path of the site
  bool supernet = false;   ///< each step trains paths of its own in every layer, drawn at random
  std::uint64_t seed = 0;  ///< of what is drawn
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "GLORA_SUPERNET";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("paths", paths);
    optional_field(v, "layer_paths", layer_paths, {});
    optional_field(v, "supernet", supernet, false);
    optional_field(v, "seed", seed, 0);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for a rank below one, a missing tensor or an unknown path.
  void validate() const {
    if (rank < 1) throw ValueError(concat("GLoRA: r ", rank, ", expected at least 1"));
    glora::check(paths);
    for (const auto& [layer, own] : layer_paths) glora::check(own);
  }
};

/// GLoRA, supernet: y = x W'ᵀ + b', W' = W + W ⊙ A + B, b' = b + b ⊙ D + E + W C.
///
/// A, B: X_d X_u (lora), the first column of X_d over all inputs (vector), its first element
/// (constant) or nothing; C the same of [in, 1]; D, E: [out], their first element, or nothing. One
/// storage for all paths: X_d [out, r] = 0, X_u [r, in] and C's [in, r] = 0, [r, 1] Xavier-uniform,
/// D, E [out] = 0; trained: 2 r (in + out) + r (in + 1) + 2 out, of which a path reads its part.
/// Without a bias b counts as zero and E + W C becomes one. With `supernet` each step draws the
/// paths of every layer; glora::search finds the best ones, by layers in the order of the adapter's
/// parts, and `layer_paths` holds them. The identity at the start; merges. Deviation: an optimiser
/// with momentum moves elements on that the paths of a step do not read. Source: Chavan et al. 2023
/// (arXiv:2306.07967), eq. 6 to 10. Tensors: glora_A.Xd, glora_A.Xu, …, glora_D.X, glora_E.X.
template <std::floating_point T>
class BasicGLoRASupernet {
 public:
  using Scalar = T;
  using Config = GLoRASupernetConfig;

  static MethodInfo info() {
    return {.peft_type = "GLORA_SUPERNET",
            .name = "GLoRA (supernet)",
            .family = "low_rank",
            .paper = "arXiv:2306.07967",
            .sites = "linear, conv",
            .parameters = "2 r (in + out) + r (in + 1) + 2 out",
            .in_peft = false};
  }

  BasicGLoRASupernet(const GLoRASupernetConfig& config, const LinearSiteInfo<T>& site,
                     InitContext<T>& context)
      : paths_(std::make_shared<glora::Paths>((config.validate(), config.paths))) {
    if (const auto own = config.layer_paths.find(site.path); own != config.layer_paths.end())
      *paths_ = own->second;
    const Index r = config.rank, in = site.in_features, out = site.out_features;
    const auto zeros = [](const Shape& shape) {
      return BasicParameter<T>(BasicTensor<T>::zeros(shape));
    };
    const auto xavier = [&](Index rows, Index cols) {
      auto t = BasicTensor<T>::zeros({rows, cols});
      const double bound = std::sqrt(6.0 / static_cast<double>(rows + cols));
      if (!context.loading) context.generator.uniform(t.data(), t.size(), -bound, bound);
      return BasicParameter<T>(std::move(t));
    };
    ad_ = zeros({out, r});
    au_ = xavier(r, in);
    bd_ = zeros({out, r});
    bu_ = xavier(r, in);
    cd_ = zeros({in, r});
    cu_ = xavier(r, 1);
    d_ = zeros({out});
    e_ = zeros({out});
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicGLoRASupernet(const GLoRASupernetConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicGLoRASupernet(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto& root = detail::root_of(base);
    auto y = detail::effective_weight(base, x,
                                      [ad = ad_, au = au_, bd = bd_, bu = bu_, path_a = path("A"),
                                       path_b = path("B"), root = &root](BasicTape<T>& t) {
                                        const auto w = t.constant(weight_of(*root));
                                        auto result = w;
                                        if (path_a != "none")
                                          result = add(result, mul(w, support(t, path_a, ad, au)));
                                        if (path_b != "none")
                                          result = add(result, support(t, path_b, bd, bu));
                                        return result;
                                      });
    const auto bias = bias_of(root);
    if (bias && path("D") != "none")
      y = add(y, mul(tape.constant(bias), vector(tape, path("D"), d_)));
    if (path("E") != "none") y = add(y, vector(tape, path("E"), e_));
    if (path("C") == "none") return y;
    const auto c = path("C") == "lora" ? matmul(tape.parameter(cd_), tape.parameter(cu_))
                                       : slice(tape.parameter(cd_), 1, 0, 1);
    return add(y, reshape(matmul(tape.constant(weight_of(root)), c), {e_.size()}));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    const std::pair<const char*, BasicParameter<T>> named[] = {
        {"glora_A.Xd", ad_}, {"glora_A.Xu", au_}, {"glora_B.Xd", bd_}, {"glora_B.Xu", bu_},
        {"glora_C.Xd", cd_}, {"glora_C.Xu", cu_}, {"glora_D.X", d_},   {"glora_E.X", e_}};
    std::vector<AdapterTensor<T>> list(8);
    for (std::size_t i = 0; i < list.size(); ++i) {
      list[i].name = named[i].first;
      list[i].parameter = named[i].second;
    }
    return list;
  }
  /// @throws ValueError for a missing tensor or an unknown path.
  void set_paths(glora::Paths paths) const {
    glora::check(paths);
    *paths_ = std::move(paths);
  }
  const glora::Paths& paths() const { return *paths_; }

 private:
  const std::string& path(const char* name) const { return paths_->at(name); }
  static BasicVar<T> support(BasicTape<T>& tape, const std::string& path,
                             const BasicParameter<T>& down, const BasicParameter<T>& up) {
    const auto xd = tape.parameter(down);
    if (path == "lora") return matmul(xd, tape.parameter(up));
    const auto column = slice(xd, 1, 0, 1);
    return path == "vector" ? column : slice(column, 0, 0, 1);
  }
  static BasicVar<T> vector(BasicTape<T>& tape, const std::string& path,
                            const BasicParameter<T>& x) {
    const auto v = tape.parameter(x);
    return path == "vector" ? v : slice(v, 0, 0, 1);
  }

  std::shared_ptr<glora::Paths> paths_;
  BasicParameter<T> ad_, au_, bd_, bu_, cd_, cu_, d_, e_;
};

/// The supernet in training: paths of its own for each step and layer, then those from before.
/// Where all layers together would train nothing, paths are drawn again.
template <std::floating_point T>
class GLoRASupernetProcedure final : public Procedure<T> {
 public:
  GLoRASupernetProcedure(std::uint64_t seed, std::vector<BasicGLoRASupernet<T>*> parts)
      : seed_(seed), parts_(std::move(parts)) {
    for (const auto* part : parts_) fixed_.push_back(part->paths());
  }
  void before_step(const StepInfo& info) override {
    TorchGenerator generator(
        splitmix64(seed_ * kSplitMixStep + static_cast<std::uint64_t>(info.step)));
    bool trains = false;
    while (!trains) {
      for (const auto* part : parts_) {
        part->set_paths(glora::draw(generator));
        trains = trains || glora::trains(part->paths());
      }
    }
  }
  void after_step(const StepInfo&) override {
    for (std::size_t i = 0; i < parts_.size(); ++i) parts_[i]->set_paths(fixed_[i]);
  }

 private:
  std::uint64_t seed_;
  std::vector<BasicGLoRASupernet<T>*> parts_;
  std::vector<glora::Paths> fixed_;
};

template <std::floating_point T>
struct GLoRASupernetMethod : LinearMethod<BasicGLoRASupernet<T>> {
  static std::unique_ptr<Procedure<T>> procedure(const GLoRASupernetConfig& config,
                                                 const std::vector<PlacedPart<T>>& parts) {
    for (const auto& [path, own] : config.layer_paths)
      if (std::none_of(parts.begin(), parts.end(),
                       [&](const auto& placed) { return placed.path == path; }))
        throw ValueError(
            concat("GLoRA: layer_paths names '", path, "', which is no adapted layer"));
    if (!config.supernet || parts.empty()) return nullptr;
    return std::make_unique<GLoRASupernetProcedure<T>>(config.seed,
                                                       methods_of<BasicGLoRASupernet<T>>(parts));
  }
};

using GLoRASupernet = BasicGLoRASupernet<float>;

}  // namespace graft::inline v0_1
