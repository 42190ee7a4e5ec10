#pragma once

#include <vector>

#include "graft/adapters/kronecker/factors.hpp"
#include "graft/adapters/method.hpp"
#include "graft/autograd/ops/row_products.hpp"

namespace graft::inline v0_1 {

/// Configuration of LoHa, fields as PEFT's LoHaConfig.
struct LoHaConfig {
  Index rank = 8;
  double alpha = 8;                   ///< scaling = alpha / rank
  double rank_dropout = 0;            ///< of rows of ΔW
  double module_dropout = 0;          ///< of the whole ΔW
  bool use_effective_conv2d = false;  ///< convolutions with a core tensor over the kernel
  ConfigValue init_weights = true;    ///< true: w2_b = 0; "lycoris": w2_a = 0; false: all random
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "LOHA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("alpha", alpha);
    v("rank_dropout", rank_dropout);
    v("module_dropout", module_dropout);
    v("use_effective_conv2d", use_effective_conv2d);
    v("init_weights", init_weights);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for a rank below one, a dropout outside of [0, 1) or an unknown init.
  void validate() const {
    if (rank < 1) throw ValueError(concat("LoHa: rank ", rank, ", expected at least 1"));
    if (!(rank_dropout >= 0 && rank_dropout < 1) || !(module_dropout >= 0 && module_dropout <= 1))
      throw ValueError("LoHa: rank_dropout expected in [0, 1), module_dropout in [0, 1]");
    if (!init_weights.is_null() && init_weights.get_if<bool>() == nullptr &&
        init_weights != ConfigValue("lycoris"))
      throw ValueError("LoHa: init_weights expected true, false or \"lycoris\"");
  }
};

/// LoHa: y = base(x) + s · x ((w1_a w1_b) ⊙ (w2_a w2_b))ᵀ, s = alpha / rank.
///
/// w1_a, w2_a: [out, rank], w1_b, w2_b: [rank, in]; trained: 2 rank (in + out). A convolution with
/// use_effective_conv2d has w_a: [rank, out], w_b: [rank, channels] and cores t: [rank, rank,
/// kernel] instead, each product being Σ_pq t[p,q,·] w_b[q,i] w_a[p,o]. In a grouped convolution
/// `in` is that of one group. The identity at the start but for init_weights false; merges. The
/// init "lycoris" is that of LyCORIS, w2_a = 0 and all others normal. The Hadamard product of two
/// matrices of rank r has rank r² and factors of that size, the products of all pairs of rows: x
/// goes through them where that takes fewer operations than ΔW written out. Source: Hyeon-Woo et
/// al. 2022 (arXiv:2108.06098), proposition 1; Yeh et al. 2024 (arXiv:2309.14859). Tensors:
/// hada_w1_a, hada_w1_b, hada_w2_a, hada_w2_b, hada_t1, hada_t2.
template <std::floating_point T>
class BasicLoHa {
 public:
  using Scalar = T;
  using Config = LoHaConfig;

  static MethodInfo info() {
    return {.peft_type = "LOHA",
            .name = "LoHa",
            .family = "kronecker",
            .paper = "arXiv:2108.06098",
            .sites = "linear, conv",
            .parameters = "2 r (in + out)"};
  }

  BasicLoHa(const LoHaConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : config_(config), conv_(site.conv) {
    config.validate();
    const Index r = config.rank, out = site.out_features, kernel = site.conv.kernel_elements();
    const Index in = site.in_features / site.conv.groups;
    cores_ = config.use_effective_conv2d && kernel > 1;
    const auto draw = [&](const Shape& shape, Index fan_in) {
      return detail::drawn_factor<T>(context, shape, fan_in);
    };
    if (config.init_weights == ConfigValue("lycoris")) {
      draw_as_lycoris(context, out, in, kernel);
      return;
    }
    for (auto* half : {&first_, &second_}) {
      const bool zero = half == &second_ && config.init_weights != ConfigValue(false);
      const Shape b = {r, cores_ ? in / kernel : in};
      half->a = cores_ ? draw({r, out}, out) : draw({out, r}, r);
      half->b = zero ? BasicParameter<T>(BasicTensor<T>::zeros(b)) : draw(b, b[1]);
    }
    if (cores_)
      for (auto* half : {&first_, &second_}) half->t = draw({r, r, kernel}, r * kernel);
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicLoHa(const LoHaConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicLoHa(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    if (detail::drop_module(tape, config_.module_dropout)) return linear(base, x);
    const T scaling = static_cast<T>(config_.alpha / static_cast<double>(config_.rank));
    if (on_activations(x.rows(), base.in_features(), base.out_features())) {
      const auto a = row_products(tape.parameter(first_.b), tape.parameter(second_.b));
      const auto b = transpose(
          row_products(transpose(tape.parameter(first_.a)), transpose(tape.parameter(second_.a))));
      return linear_low_rank(base, x, x, a, detail::drop_rows(b, config_.rank_dropout, true),
                             scaling);
    }
    auto delta = scale(mul(product(tape, first_), product(tape, second_)), scaling);
    delta = detail::drop_rows(delta, config_.rank_dropout, true);
    return add(linear(base, x), detail::grouped_affine(x, delta, conv_.groups));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    const auto put = [&](const char* name, const BasicParameter<T>& p, Shape file = {}) {
      if (p) list.push_back({.name = name, .parameter = p, .index = {}, .file_shape = file});
    };
    const Shape core = detail::core_shape(config_.rank, conv_);
    put("hada_w1_a", first_.a);
    put("hada_w1_b", first_.b);
    put("hada_w2_a", second_.a);
    put("hada_w2_b", second_.b);
    put("hada_t1", first_.t, core);
    put("hada_t2", second_.t, core);
    return list;
  }

 private:
  struct Half {
    BasicParameter<T> a, b, t;
  };
  /// w1_b, w2_b ~ N(0, 1), w1_a and the cores N(0, 0.1²), w2_a = 0.
  void draw_as_lycoris(InitContext<T>& context, Index out, Index in, Index kernel) {
    const Index r = config_.rank;
    const auto draw = [&](const Shape& shape, double deviation) {
      return BasicParameter<T>(deviation == 0 || context.loading
                                   ? BasicTensor<T>::zeros(shape)
                                   : detail::normal_tensor<T>(context.generator, shape, deviation));
    };
    for (auto* half : {&first_, &second_}) {
      half->a = draw(cores_ ? Shape{r, out} : Shape{out, r}, half == &second_ ? 0.0 : 0.1);
      half->b = draw({r, cores_ ? in / kernel : in}, 1);
      if (cores_) half->t = draw({r, r, kernel}, 0.1);
    }
  }
  /// Operations of a step over n rows: with (B₁ A₁) ⊙ (B₂ A₂) as a product of rank r², 6 n r² (in +
  /// out); with ΔW written out 6 n in · out, and 12 r in · out to write it and go back.
  bool on_activations(Index n, Index in, Index out) const {
    const Index r = config_.rank;
    return !cores_ && conv_.groups == 1 && n * r * r * (in + out) < (n + 2 * r) * in * out;
  }
  BasicVar<T> product(BasicTape<T>& tape, const Half& half) const {
    if (!cores_) return matmul(tape.parameter(half.a), tape.parameter(half.b));
    return detail::core_product(tape.parameter(half.t), tape.parameter(half.a),
                                tape.parameter(half.b));
  }

  LoHaConfig config_;
  ConvGeometry conv_;
  bool cores_ = false;
  Half first_, second_;
};

using LoHa = BasicLoHa<float>;

}  // namespace graft::inline v0_1
