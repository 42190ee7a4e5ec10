#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/adapter.hpp"
#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/sparse/wavelet_filters.hpp"
#include "graft/adapters/target_match.hpp"
#include "graft/autograd/ops/sparse_matmul.hpp"
#include "graft/autograd/ops/wavelet.hpp"

namespace graft::inline v0_1 {

/// Configuration of WaveFT, fields as PEFT's WaveFTConfig.
struct WaveFTConfig {
  Index n_frequency = 2592;
  double scaling = 25;
  std::string wavelet_family = "db1";
  bool use_idwt = true;         ///< false: the sparse matrix is the update itself
  Index random_loc_seed = 777;  ///< of the positions, which are not saved
  bool fan_in_fan_out = false;
  std::map<std::string, ConfigValue> n_frequency_pattern = {};
  bool proportional_parameters = false;  ///< n_frequency on average, each by its in · out
  bool init_weights = true;              ///< zeros; false: N(0, 0.01)
  std::string bias = "none";
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "WAVEFT";

  template <class Visitor>
  void fields(Visitor& v) {
    v("n_frequency", n_frequency);
    v("scaling", scaling);
    v("wavelet_family", wavelet_family);
    v("use_idwt", use_idwt);
    v("random_loc_seed", random_loc_seed);
    v("fan_in_fan_out", fan_in_fan_out);
    v("n_frequency_pattern", n_frequency_pattern);
    v("proportional_parameters", proportional_parameters);
    v("init_weights", init_weights);
    v("bias", bias);
    v("target_modules", target_modules);
    select.fields(v, {.rank_pattern = false, .alpha_pattern = false});
  }
};

/// WaveFT: y = base(x) + scaling · x ΔWᵀ, ΔW = the inverse wavelet transform of a sparse matrix.
///
/// The n trained elements are at the first of a random permutation of the out · in positions; moved
/// to the middle of a matrix with both sizes enlarged by the filter's length − 2 and made even,
/// whose quadrants are the coefficients of one level: ΔW = Σ c_k u_k v_kᵀ, where the left and right
/// halves of the columns make u_k of the low and the high pass, the upper and lower halves of the
/// rows v_k. So x is analysed along the inputs, goes through the sparse matrix and is synthesised
/// along the outputs; ΔW is not written out. Trained: n. The identity at the start; merges. Source:
/// Bilican et al. 2025 (arXiv:2505.12532). Filters: see detail::wavelet_filter. Tensor:
/// waveft_spectrum.
template <std::floating_point T>
class BasicWaveFT {
 public:
  using Scalar = T;
  using Config = WaveFTConfig;

  static MethodInfo info() {
    return {.peft_type = "WAVEFT",
            .name = "WaveFT",
            .family = "sparse",
            .paper = "arXiv:2505.12532",
            .sites = "linear",
            .parameters = "n_frequency"};
  }

  /// @throws ValueError if n is not in [1, out · in], or for an unknown wavelet.
  BasicWaveFT(const WaveFTConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : scaling_(static_cast<T>(config.scaling)) {
    const Index in = site.in_features, out = site.out_features, n = elements(config, site);
    if (n < 1 || n > in * out)
      throw ValueError(
          concat("WaveFT: n_frequency ", n, ", expected 1 to ", in * out, " at ", site.path));
    auto pattern = std::make_shared<SparsePattern>();
    pattern->rows = out;
    pattern->cols = in;
    if (config.use_idwt) {
      const auto low = detail::wavelet_filter(config.wavelet_family);
      out_level_ = level(out, low);
      in_level_ = level(in, low);
      pattern->rows = 2 * out_level_->half;
      pattern->cols = 2 * in_level_->half;
    }
    const Index row_offset = (pattern->rows - out) / 2, col_offset = (pattern->cols - in) / 2;
    const auto order =
        TorchGenerator(static_cast<std::uint64_t>(config.random_loc_seed)).randperm(in * out);
    for (Index k = 0; k < n; ++k) {
      const auto position = static_cast<Index>(order[static_cast<std::size_t>(k)]);
      Index row = position / in + row_offset, col = position % in + col_offset;
      if (config.use_idwt) {
        const Index rows = out_level_->half, cols = in_level_->half;
        const bool lower = row >= rows, right = col >= cols;
        row = row % rows + (right ? rows : 0);
        col = col % cols + (lower ? cols : 0);
      }
      pattern->row.push_back(static_cast<std::int32_t>(row));
      pattern->col.push_back(static_cast<std::int32_t>(col));
    }
    pattern_ = std::move(pattern);
    auto c = BasicTensor<T>::zeros({n});
    if (!config.init_weights && !context.loading) {
      context.generator.normal(c.data(), n);
      for (T& v : c) v *= static_cast<T>(0.01);
    }
    c_ = BasicParameter<T>(std::move(c));
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicWaveFT(const WaveFTConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicWaveFT(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    const auto c = scale(x.tape().parameter(c_), scaling_);
    const auto y = linear(base, x);
    if (!in_level_) return add_sparse_matmul(y, x, c, pattern_);
    const auto columns = transpose(reshape(x, {x.rows(), x.cols()}));
    const auto z = wavelet_synthesis(
        sparse_columns(wavelet_analysis(columns, in_level_), c, pattern_), out_level_);
    return add(y, reshape(transpose(z), y.shape()));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(1);
    list[0].name = "waveft_spectrum";
    list[0].parameter = c_;
    return list;
  }

 private:
  static Index elements(const WaveFTConfig& config, const LinearSiteInfo<T>& site) {
    if (config.proportional_parameters && !site.all_sites.empty()) {
      double total = 0;
      for (const auto& [path, shape] : site.all_sites)
        total += static_cast<double>(shape[0] * shape[1]);
      const double share = static_cast<double>(site.in_features * site.out_features) / total;
      const auto budget =
          static_cast<double>(config.n_frequency * static_cast<Index>(site.all_sites.size()));
      return std::max<Index>(1, static_cast<Index>(std::nearbyint(share * budget)));
    }
    const auto own = pattern_value(config.n_frequency_pattern, site.path);
    return own ? static_cast<Index>(own->number()) : config.n_frequency;
  }
  /// high[t] = (−1)ᵗ low[L − 1 − t]; L − 2 numbers are cut off before the signal.
  static std::shared_ptr<const WaveletLevel> level(Index length, const std::vector<double>& low) {
    auto result = std::make_shared<WaveletLevel>();
    const auto taps = static_cast<Index>(low.size());
    result->length = length;
    result->half = (length + taps - 2 + 1) / 2;
    result->shift = taps - 2;
    result->low = low;
    result->high.assign(low.rbegin(), low.rend());
    for (std::size_t t = 1; t < low.size(); t += 2) result->high[t] = -result->high[t];
    return result;
  }

  T scaling_;
  std::shared_ptr<const WaveletLevel> out_level_, in_level_;  // null: no transform
  std::shared_ptr<const SparsePattern> pattern_;
  BasicParameter<T> c_;
};

using WaveFT = BasicWaveFT<float>;

}  // namespace graft::inline v0_1
