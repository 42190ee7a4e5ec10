#pragma once

#include <array>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/root.hpp"
#include "graft/autograd/ops/effective_linear.hpp"

namespace graft::inline v0_1 {

/// Configuration of GLoRA, fields as PEFT's GloraConfig.
struct GLoRAConfig {
  Index rank = 8;
  std::string config_a_b = "lora";      ///< config_A_B: lora, vector, constant or none
  std::string config_c = "lora";        ///< config_C: lora, vector or none
  std::string config_d_e = "constant";  ///< config_D_E: vector, constant or none
  bool init_weights = true;             ///< false: random
  std::string bias = "none";
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "GLORA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("config_A_B", config_a_b);
    v("config_C", config_c);
    v("config_D_E", config_d_e);
    v("init_weights", init_weights);
    v("bias", bias);
    v("target_modules", target_modules);
    select.fields(
        v,
        {.exclude_modules = false, .layers = false, .rank_pattern = false, .alpha_pattern = false});
  }
  /// @throws ValueError for a rank below one or an unknown word.
  void validate() const {
    if (rank < 1) throw ValueError(concat("GLoRA: rank ", rank, ", expected at least 1"));
    const auto check = [](const char* field, const std::string& word, bool lora, bool constant) {
      if (word == "none" || word == "vector" || (lora && word == "lora") ||
          (constant && word == "constant"))
        return;
      throw ValueError(concat("GLoRA: ", field, " '", word, "', expected ", lora ? "lora, " : "",
                              "vector, ", constant ? "constant " : "", "or none"));
    };
    check("config_A_B", config_a_b, true, true);
    check("config_C", config_c, true, false);
    check("config_D_E", config_d_e, false, true);
  }
};

namespace detail {

/// A matrix [rows, cols] of one of GLoRA's forms: a product of two factors, a column that counts
/// for every column, one number for all, or nothing.
template <std::floating_point T>
struct GLoRAPath {
  enum class Form { lora, vector, constant, none };
  Form form = Form::none;
  Shape shape;                    // of what it stands for
  BasicParameter<T> down, up, x;  // Xd and Xu, or X

  GLoRAPath() = default;
  /// `flat`: a vector is kept as [rows], not as [rows, 1].
  GLoRAPath(const std::string& word, const Shape& size, Index rank, bool flat, bool identity,
            InitContext<T>& context)
      : shape(size) {
    const auto draw = [&](const Shape& s, Index fan_in) {
      return kaiming_uniform_tensor<T>(context, s, fan_in);
    };
    const Index rows = size[0], cols = size.rank() > 1 ? size[1] : 1;
    if (word == "lora") {
      form = Form::lora;
      up = BasicParameter<T>(draw({rank, cols}, cols));
      down = BasicParameter<T>(identity ? BasicTensor<T>::zeros({rows, rank})
                                        : draw({rows, rank}, rank));
    } else if (word == "vector") {
      form = Form::vector;
      const Shape kept = flat ? Shape{rows} : Shape{rows, 1};
      x = BasicParameter<T>(identity ? BasicTensor<T>::zeros(kept) : draw(kept, flat ? rows : 1));
    } else if (word == "constant") {
      form = Form::constant;
      auto value = BasicTensor<T>::zeros({1});
      if (!identity && !context.loading) context.generator.normal(value.data(), 1, 0, 0.02);
      x = BasicParameter<T>(value);
    }
  }
  explicit operator bool() const { return form != Form::none; }
  bool full() const { return form == Form::lora; }
  /// Broadcasts to `shape`.
  BasicVar<T> value(BasicTape<T>& tape) const {
    if (full()) return matmul(tape.parameter(down), tape.parameter(up));
    return tape.parameter(x);
  }
  void append(std::vector<AdapterTensor<T>>& list, const std::string& name) const {
    const auto put = [&](const char* part, const BasicParameter<T>& p) {
      if (p) list.push_back({.name = name + part, .parameter = p, .index = {}, .file_shape = {}});
    };
    put(".Xd", down);
    put(".Xu", up);
    put(".X", x);
  }
};

}  // namespace detail

/// GLoRA: y = x (W + W ⊙ A + B)ᵀ + b + b ⊙ D + E + W C for the frozen W and b.
///
/// A, B: [out, in] as a product of rank r, a column, a number or nothing; C: [in, 1] as a product,
/// a vector or nothing; D, E: [out] as a vector, a number or nothing; C, D and E only where the
/// layer has a bias, as in PEFT. Trained with all defaults: 2 r (in + out) + r (in + 1) + 2. The
/// identity at the start; merges. Only A as a product needs the whole weight; it is built again in
/// the backward pass. Source: Chavan et al. 2023 (arXiv:2306.07967), eq. 7. Tensors:
/// glora_<A…E>.Xd, .Xu or .X; files hold glora_<A…E>.zeros for what is none, as PEFT's do.
template <std::floating_point T>
class BasicGLoRA {
 public:
  using Scalar = T;
  using Config = GLoRAConfig;

  static MethodInfo info() {
    return {.peft_type = "GLORA",
            .name = "GLoRA",
            .family = "low_rank",
            .paper = "arXiv:2306.07967",
            .sites = "linear",
            .parameters = "2 r (in + out) + r (in + 1) + 2"};
  }

  BasicGLoRA(const GLoRAConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context) {
    config.validate();
    const Index in = site.in_features, out = site.out_features;
    const bool bias = static_cast<bool>(site.bias);
    const auto make = [&](const std::string& word, const Shape& shape, bool flat) {
      return detail::GLoRAPath<T>(word, shape, config.rank, flat, config.init_weights, context);
    };
    const std::string none = "none";
    paths_[0] = make(config.config_a_b, {out, in}, false);
    paths_[1] = make(config.config_a_b, {out, in}, false);
    paths_[2] = make(bias ? config.config_c : none, {in, 1}, false);
    paths_[3] = make(bias ? config.config_d_e : none, {out}, true);
    paths_[4] = make(bias ? config.config_d_e : none, {out}, true);
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicGLoRA(const GLoRAConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicGLoRA(config, with_bias(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto& [a, b, c, d, e] = paths_;
    const auto& root = detail::root_of(base);
    const bool alone = !detail::has_adapters_below(base);
    const auto bias = bias_of(root);
    BasicVar<T> y;
    if (a.full()) {
      y = effective_linear(
          x, alone ? bias : BasicTensor<T>{}, [&root, alone, a = a, b = b](BasicTape<T>& inner) {
            auto factor = a.value(inner);
            if (alone) factor = add_scalar(factor, 1);
            return add(mul(factor, inner.constant(weight_of(root))), b.value(inner));
          });
      if (!alone) y = add(linear(base, x), y);
    } else {
      y = linear(base, x);
      if (a) {  // a factor for every output
        auto frozen = alone ? y : linear(root, x);
        if (bias) frozen = sub(frozen, tape.constant(bias));
        y = add(y, mul(frozen, flat(a.value(tape))));
        const auto total = sum_axis(x, -1, true);
        y = add(y, mul(total, flat(b.value(tape))));
      }
    }
    if (!bias) return y;
    const auto frozen_bias = tape.constant(bias);
    if (d) y = add(y, mul(frozen_bias, d.value(tape)));
    if (e) y = add(y, e.value(tape));
    if (c) {
      const auto column = c.full() ? c.value(tape) : tape.parameter(c.x);
      const auto row = linear(root, reshape(column, {1, column.size()}));
      y = add(y, reshape(sub(row, frozen_bias), {bias.size()}));
    }
    return y;
  }
  BasicVar<T> bias_factor(BasicTape<T>& tape) const {
    return paths_[3] ? paths_[3].value(tape) : BasicVar<T>{};
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list = zeros_;
    for (std::size_t i = 0; i < 5; ++i) paths_[i].append(list, kNames[i]);
    return list;
  }
  std::vector<AdapterTensor<T>> file_tensors() const {
    auto list = tensors();
    for (std::size_t i = 0; i < 5; ++i) {
      if (paths_[i]) continue;
      AdapterTensor<T> t;
      t.name = concat(kNames[i], ".zeros");
      t.parameter = BasicParameter<T>(BasicTensor<T>::zeros(paths_[i].shape), false);
      list.push_back(std::move(t));
    }
    return list;
  }
  /// Files hold zeros where there is nothing.
  void before_load(const CheckpointShapes& shapes) {
    zeros_.clear();
    for (std::size_t i = 0; i < 5; ++i) {
      const std::string name = concat(kNames[i], ".zeros");
      if (paths_[i] || shapes(name) == nullptr) continue;
      AdapterTensor<T> t;
      t.name = name;
      t.parameter = BasicParameter<T>(BasicTensor<T>::zeros(paths_[i].shape), false);
      t.alias = true;
      zeros_.push_back(std::move(t));
    }
  }
  void after_load() { zeros_.clear(); }

 private:
  template <Linear L>
  static LinearSiteInfo<T> with_bias(const L& base) {
    auto site = site_info(base);
    site.bias = bias_of(base);
    return site;
  }
  static BasicVar<T> flat(const BasicVar<T>& v) { return reshape(v, {v.size()}); }

  static constexpr const char* kNames[] = {"glora_A", "glora_B", "glora_C", "glora_D", "glora_E"};

  std::array<detail::GLoRAPath<T>, 5> paths_;
  std::vector<AdapterTensor<T>> zeros_;
};

using GLoRA = BasicGLoRA<float>;

}  // namespace graft::inline v0_1
