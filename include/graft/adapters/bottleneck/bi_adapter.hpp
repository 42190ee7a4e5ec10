#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/sublayer.hpp"

namespace graft::inline v0_1 {

/// Configuration of Bi-Adapter, adapters of low bit width.
struct BiAdapterConfig {
  Index bits = 1;
  Index adapter_dim = 32;
  double scaling = 1;
  std::string variant = "adapter";    ///< a bottleneck with ReLU beside, or "lora": its factors
  double adapter_dropout = 0;         ///< of the bottleneck's output
  TargetModules target_modules = {};  ///< linear layers; none: beside the feed-forward sublayer
  Selection select = {};

  static constexpr const char* kPeftType = "BI_ADAPTER";

  template <class Visitor>
  void fields(Visitor& v) {
    v("bits", bits);
    v("adapter_dim", adapter_dim);
    v("scaling", scaling);
    v("variant", variant);
    v("adapter_dropout", adapter_dropout);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for numbers that cannot be or an unknown variant.
  void validate() const {
    if (bits != 1 && bits != 2 && bits != 4 && bits != 8)
      throw ValueError(concat("Bi-Adapter: ", bits, " bits, expected 1, 2, 4 or 8"));
    if (adapter_dim < 1)
      throw ValueError(concat("Bi-Adapter: adapter_dim ", adapter_dim, ", expected at least 1"));
    if (variant != "adapter" && variant != "lora")
      throw ValueError(
          concat("Bi-Adapter: variant '", variant, "', expected \"adapter\" or \"lora\""));
    if (!(adapter_dropout >= 0 && adapter_dropout < 1))
      throw ValueError("Bi-Adapter: adapter_dropout expected in [0, 1)");
  }
};

namespace detail {

inline double normal_distribution(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }
/// By Newton's method on the distribution, inside of a bracket.
inline double normal_quantile(double p) {
  double low = -40, high = 40, x = 0;
  for (int i = 0; i < 200 && high - low > 1e-15 * (1 + std::abs(x)); ++i) {
    const double f = normal_distribution(x) - p;
    (f > 0 ? high : low) = x;
    const double slope = std::exp(-0.5 * x * x) * 0.39894228040143267794;
    const double next = slope > 0 ? x - f / slope : 0.5 * (low + high);
    const double step = next > low && next < high ? next : 0.5 * (low + high);
    if (step == x) break;
    x = step;
  }
  return x;
}

}  // namespace detail

/// The 2^bits levels of a standard normal, each the median of its cell; the limits of the cells lie
/// in the middle between levels. Found by 500 rounds from zeros.
inline const std::vector<double>& normal_code_book(Index bits) {
  const auto make = [](Index b) {
    const auto n = std::size_t{1} << b;
    std::vector<double> level(n, 0.0), edge(n + 1, 0.0);
    edge[n] = 1;
    for (int round = 0; round < 500; ++round) {
      for (std::size_t i = 1; i < n; ++i)
        edge[i] = detail::normal_distribution((level[i - 1] + level[i]) / 2);
      for (std::size_t i = 0; i < n; ++i)
        level[i] = detail::normal_quantile((edge[i] + edge[i + 1]) / 2);
    }
    return level;
  };
  static const std::array<std::vector<double>, 3> small = {make(1), make(2), make(4)};
  static const std::vector<double> empty;
  if (bits == 8) {
    static const std::vector<double> large = make(8);
    return large;
  }
  return bits == 1 ? small[0] : bits == 2 ? small[1] : bits == 4 ? small[2] : empty;
}

/// A weight in few bits: codes packed little end first into bytes, mean and deviation.
struct PackedCodes {
  std::vector<std::uint8_t> bytes;
  double mean = 0, deviation = 0;
};

namespace detail {

template <std::floating_point T>
std::pair<double, double> mean_and_deviation(const BasicTensor<T>& w) {
  double mean = 0, square = 0;
  for (T v : w) mean += static_cast<double>(v);
  mean /= static_cast<double>(w.size());
  for (T v : w) square += (static_cast<double>(v) - mean) * (static_cast<double>(v) - mean);
  return {mean, std::sqrt(square / static_cast<double>(w.size() - 1))};
}
/// Number of the cell; a value on a limit belongs to the lower one.
inline std::size_t code_of(const std::vector<double>& book, double v) {
  std::size_t k = 0;
  while (k + 1 < book.size() && v > (book[k] + book[k + 1]) / 2) ++k;
  return k;
}

/// ŵ = q(w̃) σ + μ with w̃ = (w − μ) / (σ + 1e-5), q the level of its cell. Backward as if q were
/// the identity; the derivatives through μ and σ are kept.
template <std::floating_point T>
BasicVar<T> low_bit(const BasicVar<T>& w, Index bits) {
  auto& tape = w.tape();
  const auto& book = normal_code_book(bits);
  const auto mu = mean(w);
  const auto centred = sub(w, mu);
  const auto sigma = sqrt(scale(sum(square(centred)), T{1} / static_cast<T>(w.value().size() - 1)));
  const auto standard = div(centred, add_scalar(sigma, static_cast<T>(1e-5)));
  auto shift = BasicTensor<T>::empty(w.shape());
  for (Index i = 0; i < shift.size(); ++i) {
    const T v = standard.value()[i];
    shift[i] = static_cast<T>(book[code_of(book, static_cast<double>(v))]) - v;
  }
  return add(mul(add(standard, tape.constant(shift)), sigma), mu);
}

}  // namespace detail

template <std::floating_point T>
PackedCodes pack_codes(const BasicTensor<T>& w, Index bits) {
  const auto& book = normal_code_book(bits);
  const auto [mean, deviation] = detail::mean_and_deviation(w);
  PackedCodes packed{{}, mean, deviation};
  const Index each = 8 / bits;
  packed.bytes.assign(static_cast<std::size_t>((w.size() + each - 1) / each), 0);
  for (Index i = 0; i < w.size(); ++i) {
    const auto code =
        detail::code_of(book, (static_cast<double>(w[i]) - mean) / (deviation + 1e-5));
    auto& byte = packed.bytes[static_cast<std::size_t>(i / each)];
    byte = static_cast<std::uint8_t>(byte | code << (bits * (i % each)));
  }
  return packed;
}
/// The weight ŵ that codes stand for.
template <std::floating_point T>
BasicTensor<T> unpack_codes(const PackedCodes& packed, const Shape& shape, Index bits) {
  const auto& book = normal_code_book(bits);
  auto w = BasicTensor<T>::empty(shape);
  const Index each = 8 / bits;
  if (static_cast<Index>(packed.bytes.size()) * each < w.size())
    throw ValueError(concat("Bi-Adapter: ", packed.bytes.size(), " bytes for ", w.size(),
                            " weights of ", bits, " bits"));
  for (Index i = 0; i < w.size(); ++i) {
    const auto code = static_cast<std::size_t>(packed.bytes[static_cast<std::size_t>(i / each)]) >>
                          (bits * (i % each)) &
                      ((std::size_t{1} << bits) - 1);
    w[i] = static_cast<T>(book[code] * packed.deviation + packed.mean);
  }
  return w;
}

/// Bi-Adapter: h ← h + s ReLU(u D̂ᵀ) Ûᵀ, or y = base(x) + s x D̂ᵀ Ûᵀ ("lora"), whose weights are
/// quantised in the forward pass: ŵ = q(w̃) σ + μ over the whole matrix.
///
/// D: [r, in], U: [out, r], the latent weights in full precision; trained: r (in + out). Near the
/// identity at the start (U ~ N(0, 1e-3), clipped at 2e-3). The variant "lora" merges with ŵ.
/// Source: Jie et al. 2023 (arXiv:2307.16867), section 3; deviation: a value on the limit of a cell
/// belongs to the lower one. Tensors: adapter_down.weight, adapter_up.weight; or lora_A.weight,
/// lora_B.weight. `pack_codes` gives the form to ship.
template <std::floating_point T>
class BasicBiAdapter {
 public:
  using Scalar = T;

  BasicBiAdapter(const BiAdapterConfig& config, Index in, Index out, InitContext<T>& context)
      : bits_(config.bits),
        lora_(config.variant == "lora"),
        dropout_(config.adapter_dropout),
        scaling_(static_cast<T>(config.scaling)) {
    const double bound = kaiming_uniform_bound(in, std::sqrt(5.0));
    down_ = detail::fresh<T>(context, {config.adapter_dim, in},
                             [&](TorchGenerator& g, BasicTensor<T>& t) {
                               g.uniform(t.data(), t.size(), -bound, bound);
                             });
    up_ = detail::fresh<T>(
        context, {out, config.adapter_dim}, [](TorchGenerator& g, BasicTensor<T>& t) {
          g.normal(t.data(), t.size(), 0, 1e-3);
          for (T& v : t) v = std::min(std::max(v, static_cast<T>(-2e-3)), static_cast<T>(2e-3));
        });
  }
  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    return add(linear(base, x), branch(x));
  }
  BasicVar<T> apply(const BasicVar<T>& input, const BasicVar<T>& output, const BasicVar<T>&) const {
    return add(output, branch(input));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    return {detail::named(lora_ ? "lora_A.weight" : "adapter_down.weight", down_),
            detail::named(lora_ ? "lora_B.weight" : "adapter_up.weight", up_)};
  }
  std::string merge_reason() const {
    return lora_ ? "" : "a bottleneck with an activation is not linear";
  }

 private:
  BasicVar<T> branch(const BasicVar<T>& u) const {
    auto& tape = u.tape();
    auto h =
        matmul(u, detail::low_bit(tape.parameter(down_), bits_), Transpose::no, Transpose::yes);
    if (!lora_) h = dropout(relu(h), dropout_);
    const auto y =
        matmul(h, detail::low_bit(tape.parameter(up_), bits_), Transpose::no, Transpose::yes);
    return scale(y, scaling_);
  }

  Index bits_;
  bool lora_;
  double dropout_;
  T scaling_;
  BasicParameter<T> down_, up_;
};

template <std::floating_point T>
struct BiAdapterMethod {
  using Scalar = T;
  using Config = BiAdapterConfig;
  static constexpr bool kByRole = true;
  static MethodInfo info() {
    return {.peft_type = "BI_ADAPTER",
            .name = "Bi-Adapter",
            .family = "bottleneck",
            .paper = "arXiv:2307.16867",
            .sites = "hidden, linear",
            .parameters = "r (in + out), r = adapter_dim",
            .mergeable = false,
            .in_peft = false,
            .identity_at_init = false,
            .exact_gradient = false};
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    if (config.target_modules.empty()) return nullptr;
    return linear_part(BasicBiAdapter<T>(config, site.in_features, site.out_features, context));
  }
  static std::shared_ptr<HiddenPart<T>> hidden(const Config& config, const HiddenSiteInfo<T>& site,
                                               InitContext<T>& context) {
    if (!config.target_modules.empty() || site.role != HiddenRole::feed_forward) return nullptr;
    return hidden_part(BasicBiAdapter<T>(config, site.width, site.width, context));
  }
};

}  // namespace graft::inline v0_1
