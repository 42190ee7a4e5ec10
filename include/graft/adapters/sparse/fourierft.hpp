#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/adapter.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/sparse/dotted_pattern.hpp"
#include "graft/adapters/target_match.hpp"
#include "graft/autograd/ops/sparse_matmul.hpp"
#include "graft/autograd/ops/spectrum.hpp"

namespace graft::inline v0_1 {

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
    select.fields(v, {.rank_pattern = false, .alpha_pattern = false});
  }
};

/// FourierFT: y = base(x) + x ΔWᵀ, ΔW_oi = scaling / (out in) · Σ_k c_k cos 2π(u_k o / out + v_k i
/// / in).
///
/// c: [n]; trained: n. (u, v): the first n of a random permutation of all out · in positions. ΔW is
/// not written out: x goes to its spectrum along the inputs, through a sparse matrix that takes
/// frequency v_k to u_k, and back along the outputs, O(in log in + out log out + n) a row. The
/// identity at the start with init_weights alone; merges. Source: Gao et al. 2024
/// (arXiv:2405.03003), eq. 2–4. Tensor: fourierft_spectrum.
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
    const auto own = detail::dotted_pattern_value(config.n_frequency_pattern, site.path);
    const Index n = own ? static_cast<Index>(own->number()) : config.n_frequency;
    if (n < 1 || n > in * out)
      throw ValueError(
          concat("FourierFT: n_frequency ", n, ", expected 1 to ", in * out, " at ", site.path));
    const auto order =
        TorchGenerator(static_cast<std::uint64_t>(config.random_loc_seed)).randperm(in * out);
    // y_o = Re Σ_k c_k X̄_{v_k} e^{2πi u_k o / out}: half of it at u_k and half, conjugated, at its
    // mirror, so that the spectrum of y is that of real numbers. `inverse_spectrum` divides by out.
    const double factor = config.scaling / static_cast<double>(in);
    const Index from = in / 2 + 1, to = out / 2 + 1;
    auto pattern = std::make_shared<SparsePattern>();
    pattern->rows = 2 * to;
    pattern->cols = 2 * from;
    factors_ = BasicTensor<T>::empty({2, n});
    for (Index k = 0; k < n; ++k) {
      const auto position = static_cast<Index>(order[static_cast<std::size_t>(k)]);
      const Index u = position / in, v = position % in;
      const bool high_in = 2 * v > in, high_out = 2 * u > out, alone = u == 0 || 2 * u == out;
      const Index f = high_in ? in - v : v, g = high_out ? out - u : u;
      for (const Index part : {Index{0}, Index{1}}) {
        pattern->row.push_back(static_cast<std::int32_t>(g + part * to));
        pattern->col.push_back(static_cast<std::int32_t>(f + part * from));
      }
      factors_(0, k) = static_cast<T>(alone ? factor : factor / 2);
      factors_(1, k) = static_cast<T>(alone ? 0 : high_in == high_out ? -factor / 2 : factor / 2);
    }
    pattern_ = std::move(pattern);
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
    const auto values = transpose(mul(tape.constant(factors_), tape.parameter(c_)));
    const auto y = linear(base, x);
    return add(y, inverse_spectrum(sparse_columns(real_spectrum(x), values, pattern_), y.shape()));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    list.push_back({.name = "fourierft_spectrum", .parameter = c_, .index = {}, .file_shape = {}});
    return list;
  }

 private:
  BasicTensor<T> factors_;  ///< [2, n], of the real and the imaginary part of each element
  std::shared_ptr<const SparsePattern> pattern_;
  BasicParameter<T> c_;
};

using FourierFT = BasicFourierFT<float>;

}  // namespace graft::inline v0_1
