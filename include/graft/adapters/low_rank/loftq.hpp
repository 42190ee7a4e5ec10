#pragma once

#include <cmath>
#include <functional>

#include "graft/adapters/config_value.hpp"
#include "graft/kernels/gemm.hpp"
#include "graft/tensor/decompositions.hpp"

namespace graft::inline v0_1 {

/// `loftq_config` of LoRA's configuration, names as in PEFT.
struct LoftQConfig {
  Index bits = 4;  ///< 4: NF4 in blocks of 64; 8: rows of int8
  Index iterations = 1;

  template <class Visitor>
  void fields(Visitor& v) {
    v("loftq_bits", bits);
    v("loftq_iter", iterations);
  }
  void validate() const {
    if (bits != 4 && bits != 8)
      throw ValueError(concat("LoftQ: loftq_bits ", bits, ", expected 4 or 8"));
    if (iterations < 1)
      throw ValueError(concat("LoftQ: loftq_iter ", iterations, ", expected at least 1"));
  }
};

/// LoftQ: alternates Q = quantise(W − s B A) and s B A = the rank-r part of W − Q, from B A = 0;
/// returns Q, the new frozen weight. B √s = U √S, A √s = √S Vᵀ. `step(Q)`, if given, sees each
/// round after its factors. Source: Li et al. 2023 (arXiv:2310.08659), algorithm 1; PEFT leaves out
/// √s. w: [out, in]; a: [rank, in], b: [out, rank]; `quantise` gives what is left of a weight in
/// its format.
template <std::floating_point T>
BasicTensor<T> loftq_factors(const BasicTensor<T>& w, Index iterations, T scaling,
                             const std::function<BasicTensor<T>(const BasicTensor<T>&)>& quantise,
                             BasicTensor<T>& a, BasicTensor<T>& b,
                             const std::function<void(const BasicTensor<T>&)>& step = {}) {
  const Index in = w.cols(), out = w.rows(), r = a.rows();
  a.fill(0);
  b.fill(0);
  BasicTensor<T> q;
  for (Index t = 0; t < iterations; ++t) {
    auto rest = w.clone();
    kernels::gemm(false, false, out, in, r, -scaling, b.data(), r, a.data(), in, T{1}, rest.data(),
                  in);
    q = quantise(rest);
    for (Index i = 0; i < w.size(); ++i) rest[i] = w[i] - q[i];
    const auto d = svd(rest);
    for (Index k = 0; k < r; ++k) {
      const T root = std::sqrt(d.s[k] / scaling);
      for (Index i = 0; i < in; ++i) a(k, i) = root * d.v(i, k);
      for (Index o = 0; o < out; ++o) b(o, k) = root * d.u(o, k);
    }
    if (step) step(q);
  }
  return q;
}

}  // namespace graft::inline v0_1
