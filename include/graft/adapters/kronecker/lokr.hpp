#pragma once

#include <algorithm>
#include <tuple>
#include <utility>
#include <vector>

#include "graft/adapters/kronecker/factors.hpp"
#include "graft/adapters/method.hpp"

namespace graft::inline v0_1 {

/// Configuration of LoKr, fields as PEFT's LoKrConfig.
struct LoKrConfig {
  Index rank = 8;
  double alpha = 8;                   ///< scaling = alpha / rank, with full factors too
  double rank_dropout = 0;            ///< of rows of ΔW
  double module_dropout = 0;          ///< of the whole ΔW
  bool use_effective_conv2d = false;  ///< convolutions with a core tensor over the kernel
  bool decompose_both = false;        ///< w1 may be of low rank too
  Index decompose_factor = -1;        ///< size of the smaller factor, -1: as square as can be
  bool rank_dropout_scale = false;    ///< divides by the share of rows that stay
  ConfigValue init_weights = true;    ///< true: w1 = 0; "lycoris": w2 = 0; false: all random
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "LOKR";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("alpha", alpha);
    v("rank_dropout", rank_dropout);
    v("module_dropout", module_dropout);
    v("use_effective_conv2d", use_effective_conv2d);
    v("decompose_both", decompose_both);
    v("decompose_factor", decompose_factor);
    v("rank_dropout_scale", rank_dropout_scale);
    v("init_weights", init_weights);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for a rank below one, a dropout outside of [0, 1) or an unknown init.
  void validate() const {
    if (rank < 1) throw ValueError(concat("LoKr: rank ", rank, ", expected at least 1"));
    if (!(rank_dropout >= 0 && rank_dropout < 1) || !(module_dropout >= 0 && module_dropout <= 1))
      throw ValueError("LoKr: rank_dropout expected in [0, 1), module_dropout in [0, 1]");
    if (decompose_factor == 0 || decompose_factor < -1)
      throw ValueError(
          concat("LoKr: decompose_factor ", decompose_factor, ", expected -1 or at least 1"));
    if (init_weights.get_if<bool>() == nullptr && init_weights != ConfigValue("lycoris"))
      throw ValueError("LoKr: init_weights expected true, false or \"lycoris\"");
  }
};

/// d = m · n: m = factor where it divides d; else the pair m ≤ n with the smallest sum that growing
/// divisors lead to, m at most `factor` (-1: any).
inline std::pair<Index, Index> kronecker_sizes(Index d, Index factor) {
  if (factor > 0 && d % factor == 0) return {factor, d / factor};
  Index m = 1, n = d;
  while (m < n) {
    Index next = m + 1;
    while (d % next != 0) ++next;
    if (next + d / next > m + n || (factor > 0 && next > factor)) break;
    m = next;
    n = d / next;
  }
  return {std::min(m, n), std::max(m, n)};
}

/// LoKr: y = base(x) + s · x (w1 ⊗ w2)ᵀ, s = alpha / rank.
///
/// With out = ol · ok and in = im · in_ (kronecker_sizes): w1: [ol, im] or w1_a w1_b, w2: [ok, in_]
/// or w2_a w2_b of `rank`; low rank where rank < max(sizes) / 2, for w1 with decompose_both alone.
/// Trained: the sum of the factors' elements. The product acts on x seen as [im, in_], so that no
/// out × in matrix appears. Convolutions: in is the channels (of one group), w2 has the kernel at
/// the end, with use_effective_conv2d as a core tensor; in one dimension with a full w2 the factors
/// change places, w2 ⊗ w1, as in PEFT 0.21.2. The identity at the start; merges. Source: Yeh et al.
/// 2024 (arXiv:2309.14859), section 3.2; deviation: s stays alpha / rank with full factors, as in
/// PEFT. Tensors: lokr_w1, lokr_w1_a, lokr_w1_b, lokr_w2, lokr_w2_a, lokr_w2_b, lokr_t2.
template <std::floating_point T>
class BasicLoKr {
 public:
  using Scalar = T;
  using Config = LoKrConfig;

  static MethodInfo info() {
    return {.peft_type = "LOKR",
            .name = "LoKr",
            .family = "kronecker",
            .paper = "arXiv:2309.14859",
            .sites = "linear, conv",
            .parameters =
                "o i + r (out / o + in / i), o = floor(root(out)), i = floor(root(in)); factors "
                "near the root"};
  }

  BasicLoKr(const LoKrConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : config_(config), conv_(site.conv), kernel_(site.conv.kernel_elements()) {
    config.validate();
    std::tie(ol_, ok_) = kronecker_sizes(site.out_features, config.decompose_factor);
    std::tie(im_, in_) =
        kronecker_sizes(site.in_features / kernel_ / conv_.groups, config.decompose_factor);
    const Index r = config.rank;
    const bool split1 = config.decompose_both && 2 * r < std::max(ol_, im_);
    const bool split2 = 2 * r < std::max(ok_, in_);
    const bool zero2 = config.init_weights == ConfigValue("lycoris"),
               zero1 = config.init_weights == ConfigValue(true);
    const auto draw = [&](const Shape& shape, Index fan_in, bool zero) {
      return zero ? BasicParameter<T>(BasicTensor<T>::zeros(shape))
                  : detail::drawn_factor<T>(context, shape, fan_in);
    };
    if (split1) {
      a1_ = draw({ol_, r}, r, zero1);
      b1_ = draw({r, im_}, im_, false);
    } else {
      w1_ = draw({ol_, im_}, im_, zero1);
    }
    if (!split2) {
      w2_ = draw({ok_, in_ * kernel_}, in_ * kernel_, zero2);
    } else if (config.use_effective_conv2d && kernel_ > 1) {
      a2_ = draw({r, ok_}, ok_, false);
      b2_ = draw({r, in_}, in_, zero2);
      t2_ = draw({r, r, kernel_}, r * kernel_, false);
    } else {
      a2_ = draw({ok_, r}, r, false);
      b2_ = draw({r, in_ * kernel_}, in_ * kernel_, zero2);
    }
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicLoKr(const LoKrConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicLoKr(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto y = linear(base, x);
    if (detail::drop_module(tape, config_.module_dropout)) return y;
    if (conv_.groups > 1 || second_outside())
      return add(y, detail::grouped_affine(x, drop_rows(update(tape)), conv_.groups));
    const Index rows = x.rows(), out = ol_ * ok_;
    const auto times = [&](const BasicVar<T>& v, const BasicVar<T>& w) {
      return matmul(v, w, Transpose::no, Transpose::yes);
    };
    auto h = reshape(x, {rows * im_, in_ * kernel_});
    if (w2_)
      h = times(h, tape.parameter(w2_));
    else if (t2_)
      h = times(
          h, detail::core_product(tape.parameter(t2_), tape.parameter(a2_), tape.parameter(b2_)));
    else
      h = times(times(h, tape.parameter(b2_)), tape.parameter(a2_));
    h = permute(reshape(h, {rows, im_, ok_}), {0, 2, 1});
    if (w1_)
      h = times(h, tape.parameter(w1_));
    else
      h = times(times(h, tape.parameter(b1_)), tape.parameter(a1_));
    h = reshape(permute(h, {0, 2, 1}), {rows, out});
    h = scale(h, scaling());
    if (config_.rank_dropout > 0 && tape.training()) {
      const auto mask = detail::drop_rows(tape.constant(BasicTensor<T>::full({out, 1}, T{1})),
                                          config_.rank_dropout, config_.rank_dropout_scale);
      h = mul(h, reshape(mask, {out}));
    }
    return add(y, reshape(h, x.shape().with_last(out)));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    const auto put = [&](const char* name, const BasicParameter<T>& p, Shape file = {}) {
      if (p) list.push_back({.name = name, .parameter = p, .index = {}, .file_shape = file});
    };
    put("lokr_w1", w1_);
    put("lokr_w1_a", a1_);
    put("lokr_w1_b", b1_);
    put("lokr_w2", w2_, conv_.weight_shape(ok_, in_));
    put("lokr_w2_a", a2_);
    put("lokr_w2_b", b2_);
    put("lokr_t2", t2_, detail::core_shape(config_.rank, conv_));
    return list;
  }

 private:
  T scaling() const { return static_cast<T>(config_.alpha / static_cast<double>(config_.rank)); }
  /// PEFT's files of one-dimensional convolutions with a full w2: w2 ⊗ w1 instead of w1 ⊗ w2.
  bool second_outside() const { return conv_.kernel.size() == 1 && w2_; }
  BasicVar<T> drop_rows(const BasicVar<T>& delta) const {
    return detail::drop_rows(delta, config_.rank_dropout, config_.rank_dropout_scale);
  }
  /// s (w1 ⊗ w2) as a matrix [out, in · kernel].
  BasicVar<T> update(BasicTape<T>& tape) const {
    const auto w1 = w1_ ? tape.parameter(w1_) : matmul(tape.parameter(a1_), tape.parameter(b1_));
    const auto w2 =
        w2_   ? tape.parameter(w2_)
        : t2_ ? detail::core_product(tape.parameter(t2_), tape.parameter(a2_), tape.parameter(b2_))
              : matmul(tape.parameter(a2_), tape.parameter(b2_));
    const Shape whole{ol_ * ok_, im_ * in_ * kernel_};
    const auto product =
        second_outside()
            ? mul(reshape(w2, {ok_, 1, in_, 1, kernel_}), reshape(w1, {1, ol_, 1, im_, 1}))
            : mul(reshape(w1, {ol_, 1, im_, 1}), reshape(w2, {1, ok_, 1, in_ * kernel_}));
    return scale(reshape(product, whole), scaling());
  }

  LoKrConfig config_;
  ConvGeometry conv_;
  Index kernel_, ol_ = 1, ok_ = 1, im_ = 1, in_ = 1;
  BasicParameter<T> w1_, a1_, b1_, w2_, a2_, b2_, t2_;
};

using LoKr = BasicLoKr<float>;

}  // namespace graft::inline v0_1
