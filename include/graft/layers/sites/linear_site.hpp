#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "graft/config.hpp"
#include "graft/layers/any_linear.hpp"
#include "graft/layers/low_rank_rows.hpp"
#include "graft/layers/sites/row_groups.hpp"
#include "graft/layers/sites/site_adapters.hpp"
#include "graft/layers/sites/site_biases.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
class BasicLinearView;

/// Adapter of a linear site behind type erasure.
template <std::floating_point T>
class LinearAdapterInterface {
 public:
  virtual ~LinearAdapterInterface() = default;
  virtual BasicVar<T> apply(const BasicLinearView<T>& base, const BasicVar<T>& x) const = 0;
  /// True if several of these, one after the other, change the input in the order of their names;
  /// else each wraps those before it, so that the last one sees the input first.
  virtual bool input_in_order() const { return false; }
  /// The update of an adapter that adds a low-rank product and nothing else; empty for others.
  virtual std::optional<LowRankTerm<T>> low_rank_term() const { return std::nullopt; }
  /// D of an adapter that adds bias ⊙ D for the bias of the layer, [out] or [1]; empty for others.
  virtual BasicVar<T> bias_factor(BasicTape<T>&) const { return {}; }
};

/// The layer that an adapter of a site wraps: the frozen layer and the adapters below this one.
template <std::floating_point T>
class BasicLinearView {
 public:
  using Scalar = T;
  using Below = std::span<const std::shared_ptr<const LinearAdapterInterface<T>>>;

  BasicLinearView(const BasicAnyLinear<T>& root, Below below) : root_(&root), below_(below) {}

  Index in_features() const { return root_->in_features(); }
  Index out_features() const { return root_->out_features(); }
  BasicVar<T> operator()(const BasicVar<T>& x) const {
    if (below_.empty()) return linear(*root_, x);
    return below_.back()->apply(BasicLinearView(*root_, below_.first(below_.size() - 1)), x);
  }
  BasicVar<T> low_rank(const BasicVar<T>& x, const BasicVar<T>& x_low, const BasicVar<T>& a,
                       const BasicVar<T>& b, T scaling) const {
    if (below_.empty()) return linear_low_rank(*root_, x, x_low, a, b, scaling);
    auto h = scale(matmul(x_low, a, Transpose::no, Transpose::yes), scaling);
    return add((*this)(x), matmul(h, b, Transpose::no, Transpose::yes));
  }
  /// The frozen weight, without the adapters below.
  BasicTensor<T> dense_weight() const { return root_->dense_weight(); }
  BasicTensor<T> bias() const { return root_->bias(); }
  const BasicAnyLinear<T>& root() const { return *root_; }
  bool has_adapters_below() const { return !below_.empty(); }

 private:
  const BasicAnyLinear<T>* root_;
  Below below_;
};

/// Geometry of a convolution that is run as a linear layer over patches: in_features = channels · ∏
/// kernel.
struct ConvGeometry {
  std::vector<Index> kernel;  ///< spatial sizes; empty for a plain linear layer
  Index in_channels = 0;      ///< of the whole layer
  Index groups = 1;

  /// ∏ kernel; 1 of a plain linear layer.
  Index kernel_elements() const {
    Index count = 1;
    for (const Index k : kernel) count *= k;
    return count;
  }
  /// [rows, channels, kernel …], as files hold the weight of a convolution; empty for a plain
  /// linear layer.
  Shape weight_shape(Index rows, Index channels) const;
  /// The same of the frozen weight.
  Shape weight_shape(Index out_features) const {
    return weight_shape(out_features, in_channels / groups);
  }
  /// The same of a convolution whose kernel is one element.
  Shape pointwise_shape(Index rows, Index channels) const;
};

/// Place of a matrix in a parameter that stacks those of several experts. Each is a linear site of
/// its own, all with the path of the module that owns the parameter.
struct ExpertGeometry {
  std::string parameter;  ///< name in its module ("up_proj"); empty: an ordinary layer
  Index index = 0;
  Index count = 0;
};

/// A linear layer of a model, with its adapters. Kind `linear`.
template <std::floating_point T>
class BasicLinearSite : public SiteAdapters<LinearAdapterInterface<T>> {
 public:
  using Scalar = T;
  using typename SiteAdapters<LinearAdapterInterface<T>>::Interface;

  BasicLinearSite() = default;
  BasicLinearSite(std::string path, BasicAnyLinear<T> base)
      : SiteAdapters<LinearAdapterInterface<T>>(std::move(path)), base_(std::move(base)) {}

  const BasicAnyLinear<T>& base() const { return base_; }
  void set_base(BasicAnyLinear<T> base) { base_ = std::move(base); }
  Index in_features() const { return base_.in_features(); }
  Index out_features() const { return base_.out_features(); }
  /// True if files hold the weight as [in, out] (GPT-2's Conv1D); here it is always [out, in].
  bool fan_in_fan_out = false;
  /// Path by which configurations mean this site, where it is not the path of its tensors.
  std::string target_path;
  /// An older path of the module. A configuration that means the site by it has its tensors there.
  std::string older_path;
  /// False if the name of the bias in files is not "bias" (in_proj_bias of packed attention): the
  /// option `bias` of adapters does not mean it then.
  bool plain_bias = true;
  /// Another name in files of the bias (masked language models: that of the head around the
  /// decoder); empty: it has one.
  std::string second_bias;
  ConvGeometry conv;
  ExpertGeometry expert;
  SiteBiases<T> biases;

  /// True if what runs for some row is not the frozen layer.
  bool adapted(const BasicTape<T>& tape) const;
  BasicVar<T> operator()(const BasicVar<T>& x) const;
  /// The same where the result of the computation alone reads the values: zeros if the tape says
  /// that nobody reads that, and no adapter reads them either.
  BasicVar<T> last(const BasicVar<T>& x) const;

 private:
  bool by_rows(const ForwardContext* context) const {
    return this->runs_by_row(context) ||
           (context != nullptr && !context->row_adapters.empty() && !biases.list.empty());
  }
  BasicVar<T> run(const BasicVar<T>& x, std::span<const std::shared_ptr<const Interface>> chain,
                  const BasicParameter<T>& bias) const;
  /// Rows under low-rank updates alone go through the base together; else one product per adapter
  /// that occurs in the batch, over that adapter's rows together.
  BasicVar<T> by_row(const BasicVar<T>& x, const ForwardContext& context) const;
  /// Empty if that is not what the rows need, or if the ranks add up to more than an eighth of the
  /// inputs, from where on a product per adapter costs less.
  BasicVar<T> low_rank_rows(const BasicVar<T>& x, const RowGroups& groups) const;

  BasicAnyLinear<T> base_;
};

using LinearSite = BasicLinearSite<float>;

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/layers/sites/impl/linear_site_impl.hpp"
#endif
