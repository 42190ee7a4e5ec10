#pragma once

#include <cmath>
#include <string>
#include <utility>

#include "graft/adapters/adapter.hpp"
#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/low_rank/lora_config.hpp"
#include "graft/tensor/decompositions.hpp"

namespace graft {

/// A pair of low-rank factors: a [rank, in], b [out, rank]; b of a grouped convolution [out, rank /
/// groups], those of E stacked experts [rank E, in] and [out, rank E].
template <std::floating_point T>
struct LowRankFactors {
  BasicTensor<T> a;
  BasicTensor<T> b;
};

/// Initial factors of LoRA by the name in `init_lora_weights`, with s the scaling:
///  - true: A kaiming-uniform with a = √5, that is U(±1/√in), B = 0 (Hu et al. 2021, the reference
///  code);
///  - false: both random, B as a layer of rank inputs;   "gaussian": A ~ N(0, 1/rank), B = 0;
///  - "orthogonal": A and B from rows 1, 3, … and 0, 2, … of a random orthogonal matrix, so that B
///  A = 0;
///  - "pissa": B √s = U_r √S_r, A √s = √S_r V_rᵀ of W, and W loses s B A (Meng et al. 2024);
///  - "olora": B = Q_r, A = R_r of W = Q R, and W loses Q_r R_r (Büyükakyüz 2024); PEFT does not
///  divide by s, so W loses s B A;
///  - "mica": A = 0, B = the left singular vectors of the rank smallest singular values.
/// `rows` elements of A are drawn before those of B, as PEFT draws them.
/// @throws ValueError for another name, an odd rank with "orthogonal", or a rank above min(out, in)
/// where W is decomposed.
template <std::floating_point T>
LowRankFactors<T> initial_factors(const LoRAConfig& config, const LinearSiteInfo<T>& site,
                                  InitContext<T>& context) {
  const Index r = config.rank, in = site.in_features, out = site.out_features;
  const Index copies = std::max<Index>(1, site.expert.count);
  const Index a_rows = r * copies, b_cols = r * copies / site.conv.groups;
  const auto zeros = [](Index rows, Index cols) { return BasicTensor<T>::zeros({rows, cols}); };
  if (context.loading) return {zeros(a_rows, in), zeros(out, b_cols)};
  auto& rng = context.generator;
  const T s = static_cast<T>(config.scaling());

  const auto* flag = config.init_lora_weights.template get_if<bool>();
  const auto* word = config.init_lora_weights.template get_if<std::string>();
  if (flag != nullptr) {
    auto a = detail::kaiming_uniform_tensor<T>(rng, {a_rows, in}, in);
    if (*flag) return {a, zeros(out, b_cols)};
    return {a, detail::kaiming_uniform_tensor<T>(rng, {out, b_cols}, b_cols)};
  }
  const std::string name = word == nullptr ? "null" : *word;
  if (name == "gaussian")
    return {detail::normal_tensor<T>(rng, {a_rows, in}, 1.0 / static_cast<double>(r)),
            zeros(out, b_cols)};
  if (copies > 1 || site.conv.groups > 1)
    throw ValueError(concat("LoRA: init '", name, "' of ", site.path,
                            ", expected true, false or gaussian for experts and grouped "
                            "convolutions"));
  if (name == "orthogonal") {
    if (r % 2 != 0) throw ValueError(concat("LoRA: orthogonal init needs an even rank, got ", r));
    const auto q = qr(detail::normal_tensor<T>(rng, {r, r}, 1)).q;
    auto odd = BasicTensor<T>::empty({r / 2, r}), even = BasicTensor<T>::empty({r / 2, r});
    for (Index i = 0; i < r / 2; ++i)
      for (Index j = 0; j < r; ++j) {
        even(i, j) = q(2 * i, j);
        odd(i, j) = q(2 * i + 1, j);
      }
    constexpr T tenth = static_cast<T>(0.1);
    const auto ga = detail::normal_tensor<T>(rng, {in, r / 2}, 1);
    const auto gb = detail::normal_tensor<T>(rng, {r / 2, out}, 1);
    return {detail::product(odd, ga, tenth, true, true),
            detail::product(gb, even, tenth, true, false)};
  }
  const Index limit = std::min(in, out);
  const auto check = [&] {
    if (r > limit)
      throw ValueError(concat("LoRA: init '", name, "' of ", site.path, " needs a rank of at most ",
                              limit, ", got ", r));
    if (!site.weight)
      throw ValueError(concat("LoRA: init '", name, "' needs the weight of ", site.path));
  };
  LowRankFactors<T> f{zeros(r, in), zeros(out, r)};
  if (name == "mica") {
    check();
    const auto d = svd(site.weight());
    for (Index o = 0; o < out; ++o)
      for (Index k = 0; k < r; ++k) f.b(o, k) = d.u(o, limit - r + k);
    return f;
  }
  if (name == "pissa" || name == "olora") {
    check();
    if (!site.replace_weight)
      throw ValueError(concat("LoRA: init '", name, "' rewrites the weight of ", site.path,
                              ", whose format cannot hold the rest; dequantise the base first"));
    auto w = site.weight().clone();
    if (name == "pissa") {
      const auto d = svd(w);
      for (Index k = 0; k < r; ++k) {
        const T root = std::sqrt(d.s[k] / s);
        for (Index i = 0; i < in; ++i) f.a(k, i) = root * d.v(i, k);
        for (Index o = 0; o < out; ++o) f.b(o, k) = root * d.u(o, k);
      }
    } else {
      const auto d = qr(w);
      for (Index k = 0; k < r; ++k) {
        std::copy_n(d.r.data() + k * in, in, f.a.data() + k * in);
        for (Index o = 0; o < out; ++o) f.b(o, k) = d.q(o, k);
      }
    }
    kernels::gemm(false, false, out, in, r, -s, f.b.data(), r, f.a.data(), in, T{1}, w.data(), in);
    site.replace_weight(w);
    return f;
  }
  throw ValueError(concat("LoRA: init_lora_weights '", name,
                          "', expected true, false, gaussian, orthogonal, pissa, olora or mica"));
}

}  // namespace graft
