#pragma once

#include <string>
#include <utility>

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
                  const BasicNormSite<T>* norm = nullptr)
      : SiteAdapters<HiddenAdapterInterface<T>>(std::move(path)),
        width_(width),
        role_(role),
        output_(std::move(output)),
        norm_(norm) {}
  Index width() const { return width_; }
  HiddenRole role() const { return role_; }
  const std::string& output_name() const { return output_; }
  const BasicNormSite<T>* norm() const { return norm_; }
  /// True if the output of the sublayer is the result, whatever runs.
  bool is_plain() const { return this->adapters().empty(); }
  BasicVar<T> operator()(const BasicVar<T>& input, BasicVar<T> output,
                         const BasicVar<T>& residual = {}) const {
    const auto* context = output.tape().template context<ForwardContext>();
    if (this->runs_by_row(context)) {
      const RowGroups groups(*context, this->path(), output.rows());
      auto parts = groups.each(output.tape(), *context, [&](const RowGroups::Group& group) {
        auto part = groups.part(output, group);
        for (const auto& adapter : this->chain_of(group.name))
          part = adapter->apply(groups.part(input, group), part,
                                residual ? groups.part(residual, group) : residual);
        return part;
      });
      return groups.joined(std::move(parts), output.shape());
    }
    const auto run = [&](const auto& chain) {
      for (const auto& adapter : chain) output = adapter->apply(input, output, residual);
      return output;
    };
    return this->runs_one(context) ? run(this->chain_of(*context->only)) : run(this->chain());
  }

 private:
  Index width_ = 0;
  HiddenRole role_ = HiddenRole::block;
  std::string output_;
  const BasicNormSite<T>* norm_ = nullptr;
};

using HiddenSite = BasicHiddenSite<float>;

}  // namespace graft::inline v0_1
