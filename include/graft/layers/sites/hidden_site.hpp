#pragma once

#include <string>
#include <utility>

#include "graft/autograd/ops/elementwise.hpp"
#include "graft/layers/sites/norm_site.hpp"

namespace graft::inline v0_1 {

/// Adapter of a hidden site behind type erasure.
template <std::floating_point T>
class HiddenAdapterInterface {
 public:
  virtual ~HiddenAdapterInterface() = default;
  /// `input` is what the sublayer got, `output` what it gave (before the residual sum), `residual`
  /// what the model will add to the result (empty if it adds nothing). Returns the new output.
  virtual BasicVar<T> apply(const BasicVar<T>& input, const BasicVar<T>& output,
                            const BasicVar<T>& residual) const = 0;
  /// True if the sum of the residual and what `apply` returns is not normalised, in blocks that
  /// normalise it.
  virtual bool skips_norm() const { return false; }
};

/// What a hidden site is the end of.
enum class HiddenRole { attention, cross_attention, feed_forward, block };

/// The end of a sublayer or of a block. Kind `hidden`: bottleneck adapters, representation edits.
template <std::floating_point T>
class BasicHiddenSite : public SiteAdapters<HiddenAdapterInterface<T>> {
 public:
  using Scalar = T;

  BasicHiddenSite() = default;
  /// `output` is the path of the sublayer's last linear layer below `path`; `norm` the
  /// normalisation of the residual sum that follows (blocks that normalise after the sum), null for
  /// none.
  BasicHiddenSite(std::string path, Index width, HiddenRole role, std::string output = "",
                  const BasicNormSite<T>* norm = nullptr);
  Index width() const { return width_; }
  HiddenRole role() const { return role_; }
  const std::string& output_name() const { return output_; }
  const BasicNormSite<T>* norm() const { return norm_; }
  /// True if the output of the sublayer is the result, whatever runs.
  bool is_plain() const { return this->adapters().empty(); }
  BasicVar<T> operator()(const BasicVar<T>& input, const BasicVar<T>& output,
                         const BasicVar<T>& residual = {}) const {
    return each_chain(input, output, residual, run);
  }
  /// norm(residual + output), of a block that normalises after the sum.
  BasicVar<T> normalised_sum(const BasicVar<T>& input, const BasicVar<T>& output,
                             const BasicVar<T>& residual) const;

 private:
  using Chain = typename SiteAdapters<HiddenAdapterInterface<T>>::Chain;

  static BasicVar<T> run(const Chain& chain, const BasicVar<T>& input, BasicVar<T> output,
                         const BasicVar<T>& residual) {
    for (const auto& adapter : chain) output = adapter->apply(input, output, residual);
    return output;
  }
  /// f(chain, input, output, residual) with the adapters that run; by groups of rows where rows
  /// name theirs.
  template <class F>
  BasicVar<T> each_chain(const BasicVar<T>& input, const BasicVar<T>& output,
                         const BasicVar<T>& residual, const F& f) const {
    const auto* context = output.tape().template context<ForwardContext>();
    if (!this->runs_by_row(context))
      return this->runs_one(context) ? f(this->chain_of(*context->only), input, output, residual)
                                     : f(this->chain(), input, output, residual);
    const RowGroups groups(*context, this->path(), output.rows());
    auto parts = groups.each(output.tape(), *context, [&](const RowGroups::Group& group) {
      return f(this->chain_of(group.name), groups.part(input, group), groups.part(output, group),
               residual ? groups.part(residual, group) : residual);
    });
    return groups.joined(std::move(parts), output.shape());
  }

  Index width_ = 0;
  HiddenRole role_ = HiddenRole::block;
  std::string output_;
  const BasicNormSite<T>* norm_ = nullptr;
};

using HiddenSite = BasicHiddenSite<float>;

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/layers/sites/impl/hidden_site_impl.hpp"
#endif
