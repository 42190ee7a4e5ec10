#pragma once

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/adapter.hpp"
#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"
#include "graft/autograd/ops/project_gradient.hpp"
#include "graft/tensor/decompositions.hpp"
#include "graft/text/regex.hpp"

namespace graft::inline v0_1 {

/// Configuration of OSF, fields as PEFT's OSFConfig.
struct OSFConfig {
  /// Singular vectors that stay frozen: an integer, or a fraction in (0, 1] of min(in, out); null:
  /// half.
  ConfigValue effective_rank = {};
  /// The same by path: the first regular expression that is found anywhere in it.
  std::map<std::string, ConfigValue> rank_pattern = {};
  ConfigValue init_weights = true;     ///< false: the trained part is N(0, 1)
  ConfigValue target_svd_config = {};  ///< read and written; PEFT does not use it either
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "OSF";

  template <class Visitor>
  void fields(Visitor& v) {
    v("effective_rank", effective_rank);
    if constexpr (std::is_same_v<Visitor, ConfigWriter>) {
      const ConfigValue none;
      if (rank_pattern.empty())
        v("rank_pattern", none);
      else
        v("rank_pattern", rank_pattern);
    } else {
      v("rank_pattern", rank_pattern);
    }
    v("init_weights", init_weights);
    v("target_svd_config", target_svd_config);
    v("target_modules", target_modules);
    optional_field(v, "exclude_modules", select.exclude_modules, {});
    nullable_field(v, "modules_to_save", select.modules_to_save);
  }
};

/// OSF: W = U_h S_h V_h + U_l S_l V_l by the SVD; the k strongest directions stay, the others are
/// trained: y = base(x) + x (U S V − U_l S_l V_l)ᵀ.
///
/// U: [out, n − k], S: [n − k], V: [n − k, in] with n = min(in, out), at first those of W; trained:
/// (n − k)(in + out + 1). The gradients of U and V lose what lies in the span of U_h and V_h. The
/// identity at the start; merges. Source: Nayak et al. 2025 (arXiv:2504.07097). Tensors:
/// osf_svd_params.{U_low, S_low, V_low}; the frozen factors come from W and are not saved.
template <std::floating_point T>
class BasicOSF {
 public:
  using Scalar = T;
  using Config = OSFConfig;

  static MethodInfo info() {
    return {.peft_type = "OSF",
            .name = "OSF",
            .family = "orthogonal",
            .paper = "arXiv:2504.07097",
            .sites = "linear",
            .parameters = "(n - k) (in + out + 1), n = min(in, out), k = floor(n / 2)",
            .exact_gradient = false};
  }

  /// @throws ValueError if no direction is left to stay, or none to train.
  BasicOSF(const OSFConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context) {
    const Index in = site.in_features, out = site.out_features, n = std::min(in, out);
    const Index k = frozen_rank(config, site.path, n), low = n - k;
    if (k < 1 || low < 1)
      throw ValueError(
          concat("OSF: effective_rank ", k, ", expected 1 to ", n - 1, " at ", site.path));
    const auto d = svd(site.weight());
    auto u = BasicTensor<T>::empty({out, low}), v = BasicTensor<T>::empty({low, in}),
         s = BasicTensor<T>::empty({low});
    // What the gradients lose: [out, k] and [k, in].
    u_high_ = BasicTensor<T>::empty({out, k});
    v_high_ = BasicTensor<T>::empty({k, in});
    for (Index j = 0; j < n; ++j) {
      for (Index o = 0; o < out; ++o) (j < k ? u_high_(o, j) : u(o, j - k)) = d.u(o, j);
      for (Index i = 0; i < in; ++i) (j < k ? v_high_(j, i) : v(j - k, i)) = d.v(i, j);
      if (j >= k) s[j - k] = d.s[j];
    }
    // The part that is taken away, [out, low] and [low, in].
    minus_ = u.clone();
    for (Index o = 0; o < out; ++o)
      for (Index j = 0; j < low; ++j) minus_(o, j) *= -s[j];
    v_low_ = v;
    if (config.init_weights == ConfigValue(false) && !context.loading) {
      u = detail::normal_tensor<T>(context.generator, u.shape(), 1);
      s = detail::normal_tensor<T>(context.generator, s.shape(), 1);
      v = detail::normal_tensor<T>(context.generator, v.shape(), 1);
    }
    u_ = BasicParameter<T>(std::move(u));
    s_ = BasicParameter<T>(std::move(s));
    v_ = BasicParameter<T>(v.clone());
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicOSF(const OSFConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicOSF(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto u = project_gradient(tape.parameter(u_), [h = u_high_](const BasicTensor<T>& g) {
      return less(g, detail::product(h, detail::product(h, g, T{1}, true)));
    });
    const auto v = project_gradient(tape.parameter(v_), [h = v_high_](const BasicTensor<T>& g) {
      return less(g, detail::product(detail::product(g, h, T{1}, false, true), h));
    });
    const auto outer = concat_along(
        1, std::vector<BasicVar<T>>{mul(u, tape.parameter(s_)), tape.constant(minus_)});
    const auto inner = concat_along(0, std::vector<BasicVar<T>>{v, tape.constant(v_low_)});
    return linear_low_rank(base, x, x, inner, outer, T{1});
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(3);
    list[0].name = "osf_svd_params.U_low";
    list[0].parameter = u_;
    list[1].name = "osf_svd_params.S_low";
    list[1].parameter = s_;
    list[2].name = "osf_svd_params.V_low";
    list[2].parameter = v_;
    return list;
  }

 private:
  static BasicTensor<T> less(const BasicTensor<T>& a, const BasicTensor<T>& b) {
    auto c = BasicTensor<T>::empty(a.shape());
    kernels::sub(a.data(), b.data(), c.data(), c.size());
    return c;
  }
  static Index frozen_rank(const OSFConfig& config, const std::string& path, Index n) {
    ConfigValue value = config.effective_rank;
    for (const auto& [pattern, own] : config.rank_pattern) {
      bool found = false;
      text::Regex(pattern).for_each_match(path, [&](auto&&...) { found = true; });
      if (!found) continue;
      value = own;
      break;
    }
    if (value.is_null()) return n / 2;
    const double number = value.number();
    const bool fraction = value.get_if<double>() != nullptr && number > 0 && number <= 1;
    const auto rank = static_cast<Index>(fraction ? static_cast<double>(n) * number : number);
    return std::clamp<Index>(rank, 0, n);
  }

  BasicTensor<T> u_high_, v_high_, minus_, v_low_;
  BasicParameter<T> u_, s_, v_;
};

using OSF = BasicOSF<float>;

}  // namespace graft::inline v0_1
