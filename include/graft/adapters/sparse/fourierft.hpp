#pragma once

#include <cmath>
#include <map>
#include <numbers>
#include <string>
#include <vector>

#include "graft/adapters/adapter.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/target_match.hpp"

namespace graft {

/// Configuration of FourierFT, fields as PEFT's FourierFTConfig.
struct FourierFTConfig {
  Index n_frequency = 1000;
  double scaling = 150;
  Index random_loc_seed = 777;  ///< of the positions, which are not saved
  bool fan_in_fan_out = false;
  std::map<std::string, ConfigValue> n_frequency_pattern = {};
  bool init_weights = false;  ///< true: zeros; false: N(0, 1)
  std::string bias = "none";
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "FOURIERFT";

  template <class Visitor>
  void fields(Visitor& v) {
    v("n_frequency", n_frequency);
    v("scaling", scaling);
    v("random_loc_seed", random_loc_seed);
    v("fan_in_fan_out", fan_in_fan_out);
    v("n_frequency_pattern", n_frequency_pattern);
    v("init_weights", init_weights);
    v("bias", bias);
    v("target_modules", target_modules);
    select.fields(v);
  }
};

/// FourierFT: y = base(x) + x ΔWᵀ, ΔW_oi = scaling / (out in) · Σ_k c_k cos 2π(u_k o / out + v_k i
/// / in).
///
/// c: [n]; trained: n. (u, v): the first n of a random permutation of all out · in positions. By
/// the sum rule of the cosine ΔW has 2 n separable terms, so that it acts on x in n (in + out)
/// steps a row without being written out. The identity at the start with init_weights alone;
/// merges. Source: Gao et al. 2024 (arXiv:2405.03003), eq. 2–4. Tensor: fourierft_spectrum.
template <std::floating_point T>
class BasicFourierFT {
 public:
  using Scalar = T;
  using Config = FourierFTConfig;

  static MethodInfo info() {
    return {.peft_type = "FOURIERFT",
            .name = "FourierFT",
            .family = "sparse",
            .paper = "arXiv:2405.03003",
            .sites = "linear",
            .parameters = "n_frequency",
            .identity_at_init = false};
  }

  /// @throws ValueError if n is not in [1, out · in].
  BasicFourierFT(const FourierFTConfig& config, const LinearSiteInfo<T>& site,
                 InitContext<T>& context) {
    const Index in = site.in_features, out = site.out_features;
    const auto own = pattern_value(config.n_frequency_pattern, site.path);
    const Index n = own ? static_cast<Index>(own->number()) : config.n_frequency;
    if (n < 1 || n > in * out)
      throw ValueError(
          concat("FourierFT: n_frequency ", n, ", expected 1 to ", in * out, " at ", site.path));
    factor_ = static_cast<T>(config.scaling / (static_cast<double>(in) * static_cast<double>(out)));
    const auto order =
        TorchGenerator(static_cast<std::uint64_t>(config.random_loc_seed)).randperm(in * out);
    in_waves_ = BasicTensor<T>::empty({2 * n, in});
    out_waves_ = BasicTensor<T>::empty({2 * n, out});
    for (Index k = 0; k < n; ++k) {
      const Index position = static_cast<Index>(order[static_cast<std::size_t>(k)]);
      fill(in_waves_, k, n, position % in, T{1});
      fill(out_waves_, k, n, position / in, T{-1});
    }
    auto c = BasicTensor<T>::zeros({n});
    if (!config.init_weights && !context.loading) context.generator.normal(c.data(), n, 0, 1);
    c_ = BasicParameter<T>(std::move(c));
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicFourierFT(const FourierFTConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicFourierFT(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto c = scale(tape.parameter(c_), factor_);
    const auto h = matmul(x, tape.constant(in_waves_), Transpose::no, Transpose::yes);
    const auto weighted = mul(h, concat_along(0, std::vector<BasicVar<T>>{c, c}));
    return add(linear(base, x), matmul(weighted, tape.constant(out_waves_)));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    list.push_back({.name = "fourierft_spectrum", .parameter = c_, .index = {}, .file_shape = {}});
    return list;
  }

 private:
  /// Row k: cosine, row n + k: `sign` times the sine.
  static void fill(BasicTensor<T>& waves, Index k, Index n, Index frequency, T sign) {
    const Index width = waves.cols();
    for (Index i = 0; i < width; ++i) {
      const double angle = 2 * std::numbers::pi * static_cast<double>((frequency * i) % width) /
                           static_cast<double>(width);
      waves(k, i) = static_cast<T>(std::cos(angle));
      waves(n + k, i) = sign * static_cast<T>(std::sin(angle));
    }
  }

  T factor_ = 1;
  BasicTensor<T> in_waves_, out_waves_;
  BasicParameter<T> c_;
};

using FourierFT = BasicFourierFT<float>;

}  // namespace graft
