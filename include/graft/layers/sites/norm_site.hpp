#pragma once

#include <string>
#include <utility>

#include "graft/autograd/ops/norm.hpp"
#include "graft/layers/sites/row_groups.hpp"
#include "graft/layers/sites/site_adapters.hpp"
#include "graft/layers/sites/site_biases.hpp"

namespace graft::inline v0_1 {

/// A normalisation with frozen weight and bias.
template <std::floating_point T>
struct BasicNorm {
  BasicTensor<T> weight;  ///< empty: ones
  BasicTensor<T> bias;    ///< empty: none
  T eps = static_cast<T>(1e-5);
  bool rms = true;      ///< RMSNorm, else LayerNorm
  T weight_offset = 0;  ///< added to the weight (Gemma: 1)

  BasicVar<T> apply(const BasicVar<T>& x, const BasicVar<T>& w, const BasicVar<T>& b) const {
    if (!rms) return layer_norm(x, w, b, eps);
    auto y = rms_norm(x, w, eps, weight_offset);
    return b ? add(y, b) : y;
  }
  BasicVar<T> operator()(const BasicVar<T>& x) const {
    auto& tape = x.tape();
    return apply(x, weight ? tape.constant(weight) : BasicVar<T>{},
                 bias ? tape.constant(bias) : BasicVar<T>{});
  }
};

/// Adapter of a norm site behind type erasure: replaces what the norm computes.
template <std::floating_point T>
class NormAdapterInterface {
 public:
  virtual ~NormAdapterInterface() = default;
  virtual BasicVar<T> apply(const BasicNorm<T>& norm, const BasicVar<T>& x) const = 0;
};

/// A normalisation of a model, with its adapters. Kind `hidden`: a map of the hidden state to
/// itself. Several active adapters: the last one that applies replaces the others.
template <std::floating_point T>
class BasicNormSite : public SiteAdapters<NormAdapterInterface<T>> {
 public:
  using Scalar = T;

  BasicNormSite() = default;
  BasicNormSite(std::string path, BasicNorm<T> norm)
      : SiteAdapters<NormAdapterInterface<T>>(std::move(path)), norm_(std::move(norm)) {}
  const BasicNorm<T>& norm() const { return norm_; }
  void set_norm(BasicNorm<T> norm) { norm_ = std::move(norm); }
  SiteBiases<T> biases;
  BasicVar<T> operator()(const BasicVar<T>& x) const;

 private:
  BasicVar<T> run(const BasicVar<T>& x, const typename BasicNormSite::Chain& chain,
                  const BasicParameter<T>& bias) const {
    const auto y = chain.empty() ? norm_(x) : chain.back()->apply(norm_, x);
    return bias ? biases.put(y, bias, norm_.bias) : y;
  }

  BasicNorm<T> norm_;
};

using NormSite = BasicNormSite<float>;

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/layers/sites/impl/norm_site_impl.hpp"
#endif
