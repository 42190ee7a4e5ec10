#pragma once

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "graft/adapters/bottleneck/pfeiffer.hpp"
#include "graft/adapters/bottleneck/vl_adapter.hpp"

namespace graft::inline v0_1 {

/// Configuration of the uniform temporal adapter.
struct UTAdapterConfig {
  Index channels = 32;
  Index kernel_size = 3;  ///< of the convolution along the tokens, odd
  Selection select = {};

  static constexpr const char* kPeftType = "UT_ADAPTER";

  template <class Visitor>
  void fields(Visitor& v) {
    v("channels", channels);
    v("kernel_size", kernel_size);
    select.fields(v);
  }
  /// @throws ValueError for sizes below one or an even kernel.
  void validate() const {
    if (channels < 1 || kernel_size < 1 || kernel_size % 2 == 0)
      throw ValueError(concat("UT-Adapter: channels ", channels, ", kernel_size ", kernel_size,
                              ", expected at least 1 and odd"));
  }
};

/// UT-Adapter: x₁ = LN_b(m + x + C(x)) for both sublayers F of a block, m = F(LN(x)) where it
/// normalises first, LN(F(x)) where it normalises after the sum, whose own norm this replaces;
/// C(x) = LN_c(GELU(conv(GELU(x Dᵀ + b_D)) → GELU → Uᵀ + b_U) + x), the convolution along the
/// tokens of each row with zeros around.
///
/// D: [c, d], kernel: [c, c, k], U: [d, c]; trained a sublayer: 2 d c + 2 c + k c² + d + 4 d. Not
/// the identity at the start (the norms are new). Not mergeable. Source: Guo et al. 2023
/// (arXiv:2303.12745), section 4.2, and its code for blocks that normalise after the sum (wav2vec
/// 2.0). Tensors: ut_down, ut_conv, ut_up, ut_norm, ut_block_norm, each {weight, bias}.
template <std::floating_point T>
class BasicUTAdapter {
 public:
  using Scalar = T;

  BasicUTAdapter(const UTAdapterConfig& config, const HiddenSiteInfo<T>& site,
                 InitContext<T>& context)
      : kernel_(config.kernel_size),
        norm_("ut_norm", site.width),
        block_norm_("ut_block_norm", site.width),
        frozen_norm_(site.norm) {
    const Index c = config.channels, d = site.width;
    const auto uniform = [&](const Shape& shape, Index fan_in) {
      const double bound = 1 / std::sqrt(static_cast<double>(fan_in));
      return detail::fresh<T>(context, shape, [&](TorchGenerator& g, BasicTensor<T>& t) {
        g.uniform(t.data(), t.size(), -bound, bound);
      });
    };
    down_ = {uniform({c, d}, d), uniform({c}, d)};
    conv_ = {uniform({c, c, kernel_}, c * kernel_), uniform({c}, c * kernel_)};
    up_ = {uniform({d, c}, c), uniform({d}, c)};
  }
  BasicVar<T> apply(const BasicVar<T>&, const BasicVar<T>& output,
                    const BasicVar<T>& residual) const {
    const auto u = gelu(up_(gelu(convolve(gelu(down_(residual))))));
    const auto c = norm_(add(u, residual));
    const auto m = frozen_norm_ == nullptr ? output : (*frozen_norm_)(output);
    return sub(block_norm_(add(add(m, residual), c)), residual);
  }
  bool skips_norm() const { return frozen_norm_ != nullptr; }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    down_.list("ut_down", list);
    conv_.list("ut_conv", list);
    up_.list("ut_up", list);
    norm_.list(list);
    block_norm_.list(list);
    return list;
  }

 private:
  BasicVar<T> convolve(const BasicVar<T>& z) const {
    auto& tape = z.tape();
    const Index batch = detail::batch_rows(z), tokens = z.rows() / batch, c = z.cols(),
                side = kernel_ / 2;
    auto x = reshape(z, {batch, tokens, c});
    if (side > 0) {
      const auto zeros = tape.constant(BasicTensor<T>::zeros({batch, side, c}));
      x = concat_along(1, std::vector<BasicVar<T>>{zeros, x, zeros});
    }
    const auto taps = permute(tape.parameter(conv_.weight), {2, 0, 1});  // [k, out, in]
    BasicVar<T> y;
    for (Index k = 0; k < kernel_; ++k) {
      const auto term = matmul(slice(x, 1, k, tokens), reshape(slice(taps, 0, k, 1), {c, c}),
                               Transpose::no, Transpose::yes);
      y = y ? add(y, term) : term;
    }
    return reshape(add(y, tape.parameter(conv_.bias)), z.shape());
  }

  Index kernel_;
  detail::TrainedAffine<T> down_, conv_, up_;
  detail::AddedNorm<T> norm_, block_norm_;
  const BasicNormSite<T>* frozen_norm_;  // of the sum, in blocks that have one; of m instead
};

template <std::floating_point T>
struct UTAdapterMethod {
  using Scalar = T;
  using Config = UTAdapterConfig;
  static constexpr bool kByRole = true;
  static MethodInfo info() {
    return {.peft_type = "UT_ADAPTER",
            .name = "UT-Adapter",
            .family = "bottleneck",
            .paper = "arXiv:2303.12745",
            .sites = "hidden",
            .parameters = "2 d c + 2 c + k c^2 + 5 d, c = channels, k = kernel_size",
            .mergeable = false,
            .in_peft = false,
            .identity_at_init = false};
  }
  static std::shared_ptr<HiddenPart<T>> hidden(const Config& config, const HiddenSiteInfo<T>& site,
                                               InitContext<T>& context) {
    if (site.role != HiddenRole::attention && site.role != HiddenRole::feed_forward) return nullptr;
    return hidden_part(BasicUTAdapter<T>(config, site, context));
  }
};

}  // namespace graft::inline v0_1
