#pragma once

#include <algorithm>
#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "graft/autograd/ops/attention.hpp"
#include "graft/autograd/ops/loss.hpp"
#include "graft/autograd/ops/norm.hpp"
#include "graft/autograd/ops/shape.hpp"
#include "graft/kernels/frozen.hpp"
#include "graft/layers/any_linear.hpp"
#include "graft/layers/embedding_table.hpp"
#include "graft/layers/forward_context.hpp"
#include "graft/layers/low_rank_rows.hpp"

/// The places of a model where adapters may go. A model owns its sites, names them by path and
/// calls them in its forward pass; adapters are attached from outside and the model knows none of
/// them.
namespace graft::inline v0_1 {

template <std::floating_point T>
class BasicLinearView;
template <std::floating_point T>
class BasicEmbeddingView;
template <std::floating_point T>
class BasicNormView;

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

/// The rows of a batch by the adapter that they name, in the order of first use.
struct RowGroups {
  struct Group {
    std::string name;
    std::vector<Index> rows;
  };
  std::vector<Group> groups;
  std::vector<Index> position;  ///< of each row when the groups lie one after the other

  /// `size` rows of anything belong to the batch. @throws ShapeError if they do not fit it
  RowGroups(const ForwardContext& context, const std::string& path, Index size) {
    const auto& names = context.row_adapters;
    if (std::ssize(names) != context.batch || context.batch < 1 || size % context.batch != 0)
      throw ShapeError(concat("site ", path, ": ", names.size(), " adapter names for a batch of ",
                              context.batch, " and an input of ", size, " rows"));
    for (Index i = 0; i < context.batch; ++i) {
      const auto& name = names[static_cast<std::size_t>(i)];
      auto it = std::find_if(groups.begin(), groups.end(),
                             [&](const Group& g) { return g.name == name; });
      if (it == groups.end()) it = groups.insert(groups.end(), {name, {}});
      it->rows.push_back(i);
    }
    position.resize(names.size());
    Index placed = 0;
    for (const auto& g : groups)
      for (const Index row : g.rows) position[static_cast<std::size_t>(row)] = placed++;
  }
  /// The rows of one group of x, seen as [batch, rest, columns].
  template <std::floating_point T>
  BasicVar<T> part(const BasicVar<T>& x, const Group& group) const {
    const Index batch = std::ssize(position);
    const auto grouped = reshape(x, {batch, x.rows() / batch, x.cols()});
    return groups.size() == 1 ? grouped : gather_rows(grouped, group.rows);
  }
  /// Runs `run(group)` for each, with a context on the tape that holds the rows of the group alone.
  template <std::floating_point T, class Run>
  std::vector<BasicVar<T>> each(BasicTape<T>& tape, const ForwardContext& context,
                                Run&& run) const {
    struct Restore {
      BasicTape<T>& tape;
      std::shared_ptr<const void> before;
      ~Restore() { tape.set_context(before); }
    } restore{tape, tape.shared_context()};
    std::vector<BasicVar<T>> parts;
    for (const auto& group : groups) {
      tape.set_context(std::make_shared<ForwardContext>(context.of_rows(group.rows, group.name)));
      parts.push_back(run(group));
    }
    return parts;
  }
  /// The results of all groups as one, in the order of the batch and with this shape.
  template <std::floating_point T>
  BasicVar<T> joined(std::vector<BasicVar<T>> parts, const Shape& shape) const {
    auto y = parts.size() == 1 ? parts[0] : gather_rows(concat_along(0, parts), position);
    return reshape(y, shape);
  }
};

/// A name with an adapter, as a site holds it.
template <class Interface>
struct NamedAdapter {
  std::string name;
  std::shared_ptr<const Interface> adapter;
};

/// The adapters that a site holds, and those of them that run. Sites of every kind have this in
/// common.
template <class AdapterInterface>
class SiteAdapters {
 public:
  using Interface = AdapterInterface;
  using Chain = std::vector<std::shared_ptr<const Interface>>;

  SiteAdapters() = default;
  explicit SiteAdapters(std::string path) : path_(std::move(path)) {}

  const std::string& path() const { return path_; }
  std::vector<NamedAdapter<Interface>>& adapters() { return adapters_; }
  const std::vector<NamedAdapter<Interface>>& adapters() const { return adapters_; }
  /// Rebuilds the chain that runs from the names of the active adapters, in this order.
  void activate(const std::vector<std::string>& names) {
    chain_.clear();
    for (const auto& name : names)
      for (const auto& named : adapters_)
        if (named.name == name) chain_.push_back(named.adapter);
    if constexpr (requires(const Interface& adapter) { adapter.input_in_order(); }) {
      for (auto first = chain_.begin(); first != chain_.end();) {
        const auto last = std::find_if(
            first, chain_.end(), [](const auto& adapter) { return !adapter->input_in_order(); });
        std::reverse(first, last);
        first = last == chain_.end() ? last : last + 1;
      }
    }
  }
  const Chain& chain() const { return chain_; }
  /// The adapter of this name alone; empty if the site has none.
  Chain chain_of(const std::string& name) const {
    Chain chain;
    for (const auto& named : adapters_)
      if (named.name == name) chain.push_back(named.adapter);
    return chain;
  }

 protected:
  ~SiteAdapters() = default;
  /// True if the rows of the batch name their adapters and this site has some.
  bool runs_by_row(const ForwardContext* context) const {
    return context != nullptr && !context->row_adapters.empty() && !adapters_.empty();
  }
  /// True if all rows run one adapter that the context names.
  static bool runs_one(const ForwardContext* context) {
    return context != nullptr && context->only.has_value();
  }
  SiteAdapters(const SiteAdapters&) = default;
  SiteAdapters(SiteAdapters&&) = default;
  SiteAdapters& operator=(const SiteAdapters&) = default;
  SiteAdapters& operator=(SiteAdapters&&) = default;
  /// The last adapter that runs, where only one may; null if none does.
  const Interface* last() const { return chain_.empty() ? nullptr : chain_.back().get(); }

 private:
  std::string path_;
  std::vector<NamedAdapter<Interface>> adapters_;
  Chain chain_;
};

/// Trained biases in place of the frozen one of a layer, by the adapters that they belong to.
template <std::floating_point T>
class SiteBiases {
 public:
  /// Of the active adapters; empty: the frozen bias.
  BasicParameter<T> active;
  std::vector<std::pair<std::string, BasicParameter<T>>> list;

  BasicParameter<T> of(const std::string& name) const {
    for (const auto& [owner, bias] : list)
      if (owner == name) return bias;
    return {};
  }
  void activate(const std::vector<std::string>& names) {
    active = {};
    for (const auto& name : names)
      if (auto bias = of(name)) active = bias;
  }
  /// What this bias has more than the frozen one.
  static BasicVar<T> change(BasicTape<T>& tape, const BasicParameter<T>& bias,
                            const BasicTensor<T>& frozen) {
    const auto own = tape.parameter(bias);
    return frozen ? sub(own, tape.constant(frozen)) : own;
  }
  /// y, which has the frozen bias in it, with this one.
  static BasicVar<T> put(const BasicVar<T>& y, const BasicParameter<T>& bias,
                         const BasicTensor<T>& frozen) {
    return bias ? add(y, change(y.tape(), bias, frozen)) : y;
  }
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
  ConvGeometry conv;
  ExpertGeometry expert;
  SiteBiases<T> biases;

  /// True if what runs for some row is not the frozen layer.
  bool adapted(const BasicTape<T>& tape) const {
    const auto* context = tape.template context<ForwardContext>();
    if (by_rows(context)) return true;
    if (this->runs_one(context))
      return !this->chain_of(*context->only).empty() || biases.of(*context->only);
    return !this->chain().empty() || biases.active;
  }
  BasicVar<T> operator()(const BasicVar<T>& x) const {
    const auto* context = x.tape().template context<ForwardContext>();
    if (by_rows(context)) return by_row(x, *context);
    if (this->runs_one(context))
      return run(x, this->chain_of(*context->only), biases.of(*context->only));
    return run(x, this->chain(), biases.active);
  }

 private:
  bool by_rows(const ForwardContext* context) const {
    return this->runs_by_row(context) ||
           (context != nullptr && !context->row_adapters.empty() && !biases.list.empty());
  }
  BasicVar<T> run(const BasicVar<T>& x, std::span<const std::shared_ptr<const Interface>> chain,
                  const BasicParameter<T>& bias) const {
    const auto y = BasicLinearView<T>(base_, chain)(x);
    if (!bias) return y;
    const auto change = biases.change(x.tape(), bias, base_.bias());
    auto total = change;
    for (const auto& adapter : chain)
      if (const auto factor = adapter->bias_factor(x.tape()))
        total = add(total, mul(change, factor));
    return add(y, total);
  }
  /// Rows under low-rank updates alone go through the base together; else one product per adapter
  /// that occurs in the batch, over that adapter's rows together.
  BasicVar<T> by_row(const BasicVar<T>& x, const ForwardContext& context) const {
    const RowGroups groups(context, this->path(), x.rows());
    if (auto y = low_rank_rows(x, groups)) return y;
    auto parts = groups.each(x.tape(), context, [&](const RowGroups::Group& group) {
      return run(groups.part(x, group), this->chain_of(group.name), biases.of(group.name));
    });
    return groups.joined(std::move(parts), x.shape().with_last(out_features()));
  }
  /// Empty if that is not what the rows need, or if the ranks add up to more than an eighth of the
  /// inputs, from where on a product per adapter costs less.
  BasicVar<T> low_rank_rows(const BasicVar<T>& x, const RowGroups& groups) const {
    std::vector<LowRankTerm<T>> terms;
    std::vector<LowRankRun> runs(groups.position.size());
    const Index each = x.rows() / std::ssize(runs);
    Index ranks = 0;
    for (const auto& group : groups.groups) {
      if (biases.of(group.name)) return {};
      Index number = -1;
      for (const auto& adapter : this->chain_of(group.name)) {
        const auto term = adapter->low_rank_term();
        if (!term || number >= 0 || (term->dropout > 0 && x.tape().training())) return {};
        number = std::ssize(terms);
        ranks += term->a.shape()[0];
        terms.push_back(*term);
      }
      for (const Index row : group.rows)
        runs[static_cast<std::size_t>(row)] = {number, row * each, each};
    }
    if (8 * ranks > in_features()) return {};
    // Neighbours with the same term are one run.
    std::vector<LowRankRun> merged;
    for (const auto& run : runs)
      if (!merged.empty() && merged.back().term == run.term)
        merged.back().count += run.count;
      else
        merged.push_back(run);
    return linear_low_rank_rows(base_, x, terms, merged);
  }

  BasicAnyLinear<T> base_;
};

/// The outputs of several layers for one input. Frozen layers that round a few rows to 8 bits (see
/// Activations) do that once and share one loop of the thread pool.
template <std::floating_point T, std::size_t N>
std::array<BasicVar<T>, N> apply_each(const BasicVar<T>& x,
                                      const std::array<const BasicLinearSite<T>*, N>& sites) {
  std::array<BasicVar<T>, N> results;
  if constexpr (std::is_same_v<T, float>) {
    std::array<kernels::FrozenPart, N> parts;
    bool together = x.rows() <= kernels::kMaxInt8Rows && !x.requires_grad();
    for (std::size_t i = 0; together && i < N; ++i) {
      together = !sites[i]->adapted(x.tape());
      if (together) parts[i].w = sites[i]->base().frozen_weight();
      together = together && parts[i].w.dot_int8 != nullptr && parts[i].w.in == x.cols();
    }
    if (together) {
      for (std::size_t i = 0; i < N; ++i) {
        const Index out = parts[i].w.out;
        results[i] = x.tape().constant(BasicTensor<T>::empty(x.shape().with_last(out)));
        parts[i].bias = sites[i]->base().bias().data();
        parts[i].y = results[i].value().data();
        parts[i].ldy = out;
      }
      kernels::frozen_forward_each(parts.data(), N, x.value().data(), x.rows(), x.cols());
      return results;
    }
  }
  for (std::size_t i = 0; i < N; ++i) results[i] = (*sites[i])(x);
  return results;
}

/// Adapter of an embedding site behind type erasure.
template <std::floating_point T>
class EmbeddingAdapterInterface {
 public:
  virtual ~EmbeddingAdapterInterface() = default;
  virtual BasicVar<T> apply(const BasicEmbeddingView<T>& base, BasicTape<T>& tape,
                            std::span<const std::int32_t> ids) const = 0;
};

/// The table that an adapter of an embedding site wraps, with the adapters below this one.
template <std::floating_point T>
class BasicEmbeddingView {
 public:
  using Scalar = T;
  using Below = std::span<const std::shared_ptr<const EmbeddingAdapterInterface<T>>>;

  BasicEmbeddingView(const BasicEmbeddingTable<T>& table, Below below)
      : table_(&table), below_(below) {}
  Index vocabulary() const { return table_->rows(); }
  Index dim() const { return table_->dim(); }
  /// Rows of the ids: [ids, dim].
  BasicVar<T> operator()(BasicTape<T>& tape, std::span<const std::int32_t> ids) const {
    if (below_.empty()) return tape.constant(table_->lookup(ids));
    return below_.back()->apply(BasicEmbeddingView(*table_, below_.first(below_.size() - 1)), tape,
                                ids);
  }
  const BasicEmbeddingTable<T>& table() const { return *table_; }

 private:
  const BasicEmbeddingTable<T>* table_;
  Below below_;
};

/// An embedding table of a model, with its adapters. Kind `embedding`.
template <std::floating_point T>
class BasicEmbeddingSite : public SiteAdapters<EmbeddingAdapterInterface<T>> {
 public:
  using Scalar = T;

  BasicEmbeddingSite() = default;
  BasicEmbeddingSite(std::string path, BasicEmbeddingTable<T> table)
      : SiteAdapters<EmbeddingAdapterInterface<T>>(std::move(path)), table_(std::move(table)) {}

  const BasicEmbeddingTable<T>& table() const { return table_; }
  void set_table(BasicEmbeddingTable<T> table) { table_ = std::move(table); }
  /// Rows of the ids: [ids, dim]. @throws ValueError for an id outside of the table.
  BasicVar<T> operator()(BasicTape<T>& tape, std::span<const std::int32_t> ids) const {
    const auto* context = tape.template context<ForwardContext>();
    if (this->runs_by_row(context)) return by_row(tape, ids, *context);
    if (this->runs_one(context)) {
      const auto chain = this->chain_of(*context->only);
      return BasicEmbeddingView<T>(table_, chain)(tape, ids);
    }
    return BasicEmbeddingView<T>(table_, this->chain())(tape, ids);
  }
  /// Factor that the model multiplies the rows with afterwards (Gemma), 1 for others; LoRA's term
  /// takes part in it.
  T embed_scale = 1;
  Index padding_index = -1;  ///< row that stands for padding; -1: there is none

 private:
  BasicVar<T> by_row(BasicTape<T>& tape, std::span<const std::int32_t> ids,
                     const ForwardContext& context) const {
    const RowGroups groups(context, this->path(), std::ssize(ids));
    const Index length = std::ssize(ids) / context.batch;
    auto parts = groups.each(tape, context, [&](const RowGroups::Group& group) {
      std::vector<std::int32_t> own;
      for (const Index row : group.rows) {
        const auto of_row =
            ids.subspan(static_cast<std::size_t>(row * length), static_cast<std::size_t>(length));
        own.insert(own.end(), of_row.begin(), of_row.end());
      }
      const auto chain = this->chain_of(group.name);
      const auto rows = BasicEmbeddingView<T>(table_, chain)(tape, own);
      return reshape(rows, {std::ssize(group.rows), length, table_.dim()});
    });
    return groups.joined(std::move(parts), Shape{std::ssize(ids), table_.dim()});
  }

  BasicEmbeddingTable<T> table_;
};

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
  BasicVar<T> operator()(const BasicVar<T>& x) const {
    const auto* context = x.tape().template context<ForwardContext>();
    if (this->runs_by_row(context) ||
        (context != nullptr && !context->row_adapters.empty() && !biases.list.empty())) {
      const RowGroups groups(*context, this->path(), x.rows());
      auto parts = groups.each(x.tape(), *context, [&](const RowGroups::Group& group) {
        return run(groups.part(x, group), this->chain_of(group.name), biases.of(group.name));
      });
      return groups.joined(std::move(parts), x.shape());
    }
    if (this->runs_one(context))
      return run(x, this->chain_of(*context->only), biases.of(*context->only));
    return run(x, this->chain(), biases.active);
  }

 private:
  BasicVar<T> run(const BasicVar<T>& x, const typename BasicNormSite::Chain& chain,
                  const BasicParameter<T>& bias) const {
    const auto y = chain.empty() ? norm_(x) : chain.back()->apply(norm_, x);
    return bias ? biases.put(y, bias, norm_.bias) : y;
  }

  BasicNorm<T> norm_;
};

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

/// One attention while it runs: queries, keys and values (after rotation) and its options.
template <std::floating_point T>
struct AttentionCall {
  BasicVar<T> input;  ///< hidden state that q, k, v were computed from, [batch · q_len, hidden]
  BasicVar<T> q, k, v;
  AttentionOptions<T> options;
  /// The layers that make keys and values of a hidden state, apart or with the queries in one
  /// (`fused`), and the one that the result goes through; null where the caller does not say. With
  /// `output`, the attention site applies it.
  const BasicLinearSite<T>* key = nullptr;
  const BasicLinearSite<T>* value = nullptr;
  const BasicLinearSite<T>* fused = nullptr;
  const BasicLinearSite<T>* output = nullptr;
};

/// Adapter of an attention site behind type erasure.
template <std::floating_point T>
class AttentionAdapterInterface {
 public:
  virtual ~AttentionAdapterInterface() = default;
  /// May replace keys, values, masks before the attention.
  virtual void before(AttentionCall<T>&) const {}
  /// May change the result (heads side by side, before the output projection).
  virtual BasicVar<T> after(const AttentionCall<T>&, BasicVar<T> out) const { return out; }
  /// May change what the output projection made of the result.
  virtual BasicVar<T> projected(const AttentionCall<T>&, BasicVar<T> out) const { return out; }
  /// Number of keys that `before` puts in front of those of the text.
  virtual Index virtual_keys() const { return 0; }
};

/// What an attention reads.
enum class AttentionRole {
  self,     ///< its own tokens, in the stack that makes the output
  encoder,  ///< its own tokens, in the encoder before a decoder
  cross,    ///< what an encoder made
};

/// The attention of a block. Kind `attention`: prefixes, gated prompts.
template <std::floating_point T>
class BasicAttentionSite : public SiteAdapters<AttentionAdapterInterface<T>> {
 public:
  using Scalar = T;

  BasicAttentionSite() = default;
  BasicAttentionSite(std::string path, Index layer_number, Index query_heads, Index key_value_heads,
                     Index head_width, AttentionRole reads = AttentionRole::self)
      : SiteAdapters<AttentionAdapterInterface<T>>(std::move(path)),
        layer(layer_number),
        heads(query_heads),
        kv_heads(key_value_heads),
        head_dim(head_width),
        role(reads) {}
  Index layer = 0, heads = 1, kv_heads = 1, head_dim = 1;
  AttentionRole role = AttentionRole::self;
  kernels::Compute compute = kernels::Compute::f32;  ///< of the products of queries, keys, values
  /// Keys of the active adapters before those of the text.
  Index virtual_keys() const { return keys_of(this->chain()); }
  /// The same for each row of a batch.
  std::vector<Index> virtual_keys(const ForwardContext* context, Index batch) const {
    const auto size = static_cast<std::size_t>(batch);
    if (this->adapters().empty()) return std::vector<Index>(size, 0);
    if (this->runs_one(context))
      return std::vector<Index>(size, keys_of(this->chain_of(*context->only)));
    std::vector<Index> keys(size, keys_of(this->chain()));
    if (this->runs_by_row(context) && context->row_adapters.size() == size)
      for (std::size_t row = 0; row < size; ++row)
        keys[row] = keys_of(this->chain_of(context->row_adapters[row]));
    return keys;
  }
  BasicVar<T> operator()(AttentionCall<T> call) const {
    call.options.compute = compute;
    const auto* context = call.q.tape().template context<ForwardContext>();
    if (this->runs_by_row(context)) return by_row(call, *context);
    return this->runs_one(context) ? run(call, this->chain_of(*context->only))
                                   : run(call, this->chain());
  }

 private:
  using Chain = typename SiteAdapters<AttentionAdapterInterface<T>>::Chain;

  static Index keys_of(const Chain& chain) {
    Index count = 0;
    for (const auto& adapter : chain) count += adapter->virtual_keys();
    return count;
  }
  static BasicVar<T> attend(AttentionCall<T>& call, const Chain& chain) {
    for (const auto& adapter : chain) adapter->before(call);
    auto out = attention(call.q, call.k, call.v, call.options);
    for (const auto& adapter : chain) out = adapter->after(call, out);
    return out;
  }
  static BasicVar<T> run(AttentionCall<T>& call, const Chain& chain) {
    auto out = attend(call, chain);
    if (call.output == nullptr) return out;
    out = (*call.output)(out);
    for (const auto& adapter : chain) out = adapter->projected(call, out);
    return out;
  }
  /// One attention per adapter that occurs in the batch; the output layer, which may have adapters
  /// of its own, sees all rows.
  BasicVar<T> by_row(const AttentionCall<T>& call, const ForwardContext& context) const {
    const RowGroups groups(context, this->path(), call.q.rows());
    auto& tape = call.q.tape();
    std::vector<AttentionCall<T>> calls;
    const auto rows_of = [&](const BasicVar<T>& x, const RowGroups::Group& group) {
      const auto part = groups.part(x, group);
      return reshape(part, {part.rows(), part.cols()});
    };
    auto parts = groups.each(tape, context, [&](const RowGroups::Group& group) {
      auto own = call;
      if (call.input) own.input = rows_of(call.input, group);
      own.q = rows_of(call.q, group);
      own.k = rows_of(call.k, group);
      own.v = rows_of(call.v, group);
      own.options.batch = std::ssize(group.rows);
      if (call.options.key_mask) {
        const auto& mask = *call.options.key_mask;
        const auto width = std::ssize(mask) / context.batch;
        std::vector<unsigned char> some;
        for (const Index row : group.rows)
          some.insert(some.end(), mask.begin() + row * width, mask.begin() + (row + 1) * width);
        own.options.key_mask = std::make_shared<std::vector<unsigned char>>(std::move(some));
      }
      auto out = attend(own, this->chain_of(group.name));
      calls.push_back(std::move(own));
      return reshape(out,
                     {std::ssize(group.rows), out.rows() / std::ssize(group.rows), out.cols()});
    });
    const Index width = parts.front().cols();
    auto out = groups.joined(std::move(parts), call.q.shape().with_last(width));
    if (call.output == nullptr) return out;
    out = (*call.output)(out);
    std::size_t next = 0;
    auto projected = groups.each(tape, context, [&](const RowGroups::Group& group) {
      auto part = rows_of(out, group);
      for (const auto& adapter : this->chain_of(group.name))
        part = adapter->projected(calls[next], part);
      ++next;
      return reshape(part,
                     {std::ssize(group.rows), part.rows() / std::ssize(group.rows), part.cols()});
    });
    return groups.joined(std::move(projected), out.shape());
  }
};

/// Adapter of a prompt site behind type erasure.
template <std::floating_point T>
class PromptAdapterInterface {
 public:
  virtual ~PromptAdapterInterface() = default;
  virtual Index virtual_tokens() const = 0;
  /// The same for a batch that has visual tokens of its own, or none.
  virtual Index tokens_with(bool /*visual*/) const { return virtual_tokens(); }
  /// Embeddings of the virtual tokens for each row of the batch: [batch, virtual_tokens, dim].
  virtual BasicVar<T> prompt(BasicTape<T>& tape, Index batch,
                             const ForwardContext& context) const = 0;
  /// The same for the decoder of an encoder-decoder model; empty: its input stays as it is.
  virtual BasicVar<T> decoder_prompt(BasicTape<T>&, Index, const ForwardContext&) const {
    return {};
  }
  /// Whether the last virtual token has to predict the first one of the text.
  virtual bool predicts() const { return true; }
  /// May change what is to be predicted: labels [batch, virtual_tokens + tokens], those of virtual
  /// tokens -100 so far, and the factor of the loss of each (empty: one).
  virtual void change_labels(Index, std::span<std::int64_t>, std::vector<T>&) const {}
};

/// Where virtual tokens enter: between the embedding and the first block, in front of the tokens of
/// the model or behind the first ones of them (a class token). Kind `embedding`.
template <std::floating_point T>
class BasicPromptSite : public SiteAdapters<PromptAdapterInterface<T>> {
 public:
  using Scalar = T;

  BasicPromptSite() = default;
  BasicPromptSite(std::string path, Index dim, Index in_front = 0)
      : SiteAdapters<PromptAdapterInterface<T>>(std::move(path)), dim_(dim), in_front_(in_front) {}
  Index dim() const { return dim_; }
  /// Tokens of the model that stay before the virtual ones.
  Index in_front() const { return in_front_; }
  /// Virtual tokens of the active adapter.
  Index virtual_tokens() const { return tokens_of(this->last()); }
  /// The same for each row of a batch whose rows name their adapters (or not). Rows with fewer than
  /// others are filled up in front with tokens that nothing may look at.
  std::vector<Index> virtual_tokens(const std::vector<std::string>& row_adapters, Index batch,
                                    bool visual = false) const {
    std::vector<Index> tokens(static_cast<std::size_t>(batch), tokens_of(this->last(), visual));
    if (row_adapters.size() == tokens.size())
      for (std::size_t row = 0; row < tokens.size(); ++row)
        tokens[row] = tokens_of(alone(row_adapters[row]), visual);
    return tokens;
  }
  /// x: [batch, tokens, dim] -> [batch, virtual_tokens + tokens, dim].
  BasicVar<T> operator()(const BasicVar<T>& x, const ForwardContext& context) const {
    if (this->runs_by_row(&context)) return by_row(x, context);
    if (tokens_of(this->last(), !context.visual.empty()) == 0) return x;
    return joined(x, {this->last()->prompt(x.tape(), x.dim(0), context)});
  }
  /// The same in front of a decoder, for the adapters that have something to put there.
  /// @throws ValueError if the rows of the batch name their adapters and one of them has
  BasicVar<T> before_decoder(const BasicVar<T>& x, const ForwardContext& context) const {
    if (this->runs_by_row(&context)) {
      for (const auto& name : context.row_adapters)
        if (const auto* adapter = alone(name);
            adapter != nullptr && adapter->decoder_prompt(x.tape(), 1, context))
          throw ValueError(concat("site ", this->path(), ": adapter '", name,
                                  "' has tokens before the decoder, these cannot be for some rows "
                                  "of a batch only"));
      return x;
    }
    if (this->last() == nullptr) return x;
    const auto rows = this->last()->decoder_prompt(x.tape(), x.dim(0), context);
    return rows ? concat_along(1, std::vector<BasicVar<T>>{rows, x}) : x;
  }
  void change_labels(Index batch, std::span<std::int64_t> labels, std::vector<T>& weights,
                     const std::vector<std::string>& row_adapters = {}, bool visual = false) const {
    if (row_adapters.empty()) {
      if (this->last() != nullptr) change(*this->last(), batch, labels, weights, visual);
      return;
    }
    const auto own = virtual_tokens(row_adapters, batch, visual);
    const Index most = *std::max_element(own.begin(), own.end());
    const auto width = labels.size() / static_cast<std::size_t>(batch);
    for (std::size_t row = 0; row < own.size(); ++row) {
      const auto* adapter = alone(row_adapters[row]);
      if (adapter == nullptr) continue;
      const auto skip = static_cast<std::size_t>(most - own[row]);
      std::vector<T> changed;
      change(*adapter, 1, labels.subspan(row * width + skip, width - skip), changed, visual);
      if (changed.empty()) continue;
      weights.resize(labels.size(), T{1});
      std::copy(changed.begin(), changed.end(),
                weights.begin() + static_cast<std::ptrdiff_t>(row * width + skip));
    }
  }

 private:
  using Interface = PromptAdapterInterface<T>;

  static Index tokens_of(const Interface* adapter) {
    return adapter == nullptr ? 0 : adapter->virtual_tokens();
  }
  static Index tokens_of(const Interface* adapter, bool visual) {
    return adapter == nullptr ? 0 : adapter->tokens_with(visual);
  }
  static void change(const Interface& adapter, Index batch, std::span<std::int64_t> labels,
                     std::vector<T>& weights, bool visual) {
    const auto width = labels.size() / static_cast<std::size_t>(batch);
    if (!adapter.predicts())
      for (auto at = static_cast<std::size_t>(adapter.tokens_with(visual)); at < labels.size();
           at += width)
        labels[at] = kIgnoredLabel;
    adapter.change_labels(batch, labels, weights);
  }
  /// x with others at their place.
  BasicVar<T> joined(const BasicVar<T>& x, std::vector<BasicVar<T>> others) const {
    if (in_front_ > 0) others.insert(others.begin(), slice(x, 1, 0, in_front_));
    others.push_back(in_front_ > 0 ? slice(x, 1, in_front_, x.dim(1) - in_front_) : x);
    return concat_along(1, others);
  }
  const Interface* alone(const std::string& name) const {
    for (const auto& named : this->adapters())
      if (named.name == name) return named.adapter.get();
    return nullptr;
  }
  BasicVar<T> by_row(const BasicVar<T>& x, const ForwardContext& context) const {
    const bool visual = !context.visual.empty();
    const auto own = virtual_tokens(context.row_adapters, context.batch, visual);
    const Index most = *std::max_element(own.begin(), own.end());
    if (most == 0) return x;
    const RowGroups groups(context, this->path(), x.rows());
    auto& tape = x.tape();
    auto parts = groups.each(tape, context, [&](const RowGroups::Group& group) {
      const auto* adapter = alone(group.name);
      const Index rows = std::ssize(group.rows), tokens = tokens_of(adapter, visual),
                  fill = most - tokens;
      std::vector<BasicVar<T>> list;
      if (fill > 0) list.push_back(tape.constant(BasicTensor<T>::zeros({rows, fill, dim_})));
      if (tokens > 0)
        list.push_back(adapter->prompt(tape, rows, *tape.template context<ForwardContext>()));
      return joined(groups.part(x, group), std::move(list));
    });
    return groups.joined(std::move(parts), Shape{x.dim(0), most + x.dim(1), dim_});
  }

  Index dim_ = 0, in_front_ = 0;
};

/// Adapter of a whole forward pass behind type erasure.
template <std::floating_point T>
class PassAdapterInterface {
 public:
  virtual ~PassAdapterInterface() = default;
  /// Called before the pass that `tape` records. `hidden_states(tape)` runs the model on the same
  /// batch and gives its last hidden states, [tokens, hidden]; it comes back here first.
  virtual void before(BasicTape<T>& tape,
                      const std::function<BasicTensor<T>(BasicTape<T>&)>& hidden_states) const = 0;
};

/// The forward pass of a model as a whole. Kind `pass`: adapters that run the model twice. They
/// decide by themselves which other adapters a row runs, so rows cannot name them.
template <std::floating_point T>
class BasicPassSite : public SiteAdapters<PassAdapterInterface<T>> {
 public:
  using Scalar = T;
  using SiteAdapters<PassAdapterInterface<T>>::SiteAdapters;
  void operator()(BasicTape<T>& tape,
                  const std::function<BasicTensor<T>(BasicTape<T>&)>& hidden_states) const {
    const auto* context = tape.template context<ForwardContext>();
    if (this->runs_by_row(context)) {
      for (const auto& named : this->adapters())
        if (std::find(context->row_adapters.begin(), context->row_adapters.end(), named.name) !=
            context->row_adapters.end())
          throw ValueError(concat("adapter '", named.name,
                                  "' mixes other adapters by what the whole batch looks like: it "
                                  "cannot run for some rows of a batch only; give these rows a "
                                  "batch of their own"));
      return;
    }
    for (const auto& adapter : this->chain()) adapter->before(tape, hidden_states);
  }
};

/// The tokens that a block runs on, [batch, tokens] in the rows of its input.
struct BlockTokens {
  Index batch = 1;
  std::shared_ptr<const std::vector<unsigned char>> key_mask =
      nullptr;                   ///< [batch, tokens], 1 = visible; null: all
  std::vector<Index> fill = {};  ///< tokens that fill each row up in front; empty: none
  /// Position of each token in its row, [batch · tokens], where some of a row are left out; empty:
  /// one after the other.
  std::vector<Index> positions = {};

  /// Those of some rows of the batch.
  BlockTokens of_rows(const std::vector<Index>& rows) const {
    BlockTokens part;
    part.batch = static_cast<Index>(rows.size());
    const auto take = [&](const auto& from, auto& to) {
      const auto width = std::ssize(from) / batch;
      for (const Index row : rows)
        to.insert(to.end(), from.begin() + row * width, from.begin() + (row + 1) * width);
    };
    if (key_mask) {
      auto mask = std::make_shared<std::vector<unsigned char>>();
      take(*key_mask, *mask);
      part.key_mask = std::move(mask);
    }
    take(fill, part.fill);
    take(positions, part.positions);
    return part;
  }
};

/// The blocks of a model as functions of hidden states, for adapters that run them in a way of
/// their own. Valid as long as the model; they may be copied into a backward pass.
template <std::floating_point T>
struct StackBlocks {
  using Run = std::function<BasicVar<T>(Index layer, const BasicVar<T>& x, const BlockTokens&)>;

  Index count = 0;
  BlockTokens tokens;  ///< of the pass that runs
  Run block;
  /// The two sublayers of a block, each with its norm and residual sum: block(x) =
  /// feed_forward(attention(x)). Null where blocks are of another kind.
  Run attention, feed_forward;
};

/// Adapter of a stack of blocks behind type erasure: goes along with the hidden states from block
/// to block, or runs the blocks itself. What it carries from one to the next it keeps itself; a
/// pass begins with `begin`.
template <std::floating_point T>
class StackAdapterInterface {
 public:
  virtual ~StackAdapterInterface() = default;
  virtual void begin(BasicTape<T>& tape) const = 0;
  /// Input of block `layer`, [tokens, hidden]; what the block gets instead.
  virtual BasicVar<T> enter(Index layer, const BasicVar<T>& x) const = 0;
  /// Output of block `layer`.
  virtual void leave(Index layer, const BasicVar<T>& x) const = 0;
  /// What the model has after its last block and the norm that may follow; what the head gets
  /// instead.
  virtual BasicVar<T> finish(const BasicVar<T>& x) const { return x; }
  /// True if the adapter runs the blocks by `run`; `enter` and `leave` are not called then.
  virtual bool runs_blocks() const { return false; }
  /// Input of the first block; what the last one gives, which may have fewer tokens a row.
  virtual BasicVar<T> run(const BasicVar<T>& x, const StackBlocks<T>&) const { return x; }
};

/// The blocks of a model, one after the other. Kind `stack`. Of several active adapters that run
/// the blocks themselves the last one does.
template <std::floating_point T>
class BasicStackSite : public SiteAdapters<StackAdapterInterface<T>> {
 public:
  using Scalar = T;
  using SiteAdapters<StackAdapterInterface<T>>::SiteAdapters;

  void begin(BasicTape<T>& tape) const {
    const auto* context = tape.template context<ForwardContext>();
    if (!this->runs_by_row(context)) {
      for (const auto& adapter : running(context)) adapter->begin(tape);
      return;
    }
    const RowGroups groups(*context, this->path(), context->batch);
    groups.each(tape, *context, [&](const RowGroups::Group& group) {
      for (const auto& adapter : this->chain_of(group.name)) adapter->begin(tape);
      return BasicVar<T>{};
    });
  }
  BasicVar<T> enter(Index layer, BasicVar<T> x) const {
    if (this->adapters().empty()) return x;
    const auto* context = x.tape().template context<ForwardContext>();
    if (!this->runs_by_row(context)) {
      for (const auto& adapter : running(context)) x = adapter->enter(layer, x);
      return x;
    }
    const RowGroups groups(*context, this->path(), x.rows());
    auto parts = groups.each(x.tape(), *context, [&](const RowGroups::Group& group) {
      auto part = flat(groups.part(x, group));
      for (const auto& adapter : this->chain_of(group.name)) part = adapter->enter(layer, part);
      return by_rows(part, std::ssize(group.rows));
    });
    return groups.joined(std::move(parts), x.shape());
  }
  void leave(Index layer, const BasicVar<T>& x) const {
    if (this->adapters().empty()) return;
    const auto* context = x.tape().template context<ForwardContext>();
    if (!this->runs_by_row(context)) {
      for (const auto& adapter : running(context)) adapter->leave(layer, x);
      return;
    }
    const RowGroups groups(*context, this->path(), x.rows());
    groups.each(x.tape(), *context, [&](const RowGroups::Group& group) {
      const auto chain = this->chain_of(group.name);
      const auto part = chain.empty() ? BasicVar<T>{} : flat(groups.part(x, group));
      for (const auto& adapter : chain) adapter->leave(layer, part);
      return part;
    });
  }
  BasicVar<T> finish(BasicVar<T> x) const {
    if (this->adapters().empty()) return x;
    const auto* context = x.tape().template context<ForwardContext>();
    if (!this->runs_by_row(context)) {
      for (const auto& adapter : running(context)) x = adapter->finish(x);
      return x;
    }
    const RowGroups groups(*context, this->path(), x.rows());
    auto parts = groups.each(x.tape(), *context, [&](const RowGroups::Group& group) {
      auto part = flat(groups.part(x, group));
      for (const auto& adapter : this->chain_of(group.name)) part = adapter->finish(part);
      return by_rows(part, std::ssize(group.rows));
    });
    return groups.joined(std::move(parts), x.shape());
  }
  /// True if some adapter here runs blocks itself: the model then leaves them to `run`.
  bool runs_blocks() const {
    return std::any_of(this->adapters().begin(), this->adapters().end(),
                       [](const auto& named) { return named.adapter->runs_blocks(); });
  }
  /// x through all blocks. @throws ValueError where adapters that go along with the hidden states
  /// are active beside one that runs the blocks
  BasicVar<T> run(const BasicVar<T>& x, const StackBlocks<T>& blocks) const {
    const auto* context = x.tape().template context<ForwardContext>();
    if (!this->runs_by_row(context)) return run(running(context), x, blocks);
    const RowGroups groups(*context, this->path(), x.rows());
    auto parts = groups.each(x.tape(), *context, [&](const RowGroups::Group& group) {
      auto own = blocks;
      own.tokens = blocks.tokens.of_rows(group.rows);
      return by_rows(run(this->chain_of(group.name), flat(groups.part(x, group)), own),
                     std::ssize(group.rows));
    });
    for (const auto& part : parts)
      if (part.dim(1) * context->batch != x.rows())
        throw ValueError(concat("stack of blocks: adapters of some rows of a batch leave ",
                                part.dim(1), " of ", x.rows() / context->batch,
                                " tokens; give these rows a batch of their own"));
    return groups.joined(std::move(parts), x.shape());
  }

 private:
  using Chain = typename SiteAdapters<StackAdapterInterface<T>>::Chain;

  static BasicVar<T> run(const Chain& chain, BasicVar<T> x, const StackBlocks<T>& blocks) {
    const auto runs = [](const auto& adapter) { return adapter->runs_blocks(); };
    const auto last = std::find_if(chain.rbegin(), chain.rend(), runs);
    if (last != chain.rend()) {
      if (!std::all_of(chain.begin(), chain.end(), runs))
        throw ValueError(
            "stack of blocks: an adapter that runs the blocks itself and one that reads or changes "
            "hidden states between them cannot be active together");
      return (*last)->run(x, blocks);
    }
    for (Index l = 0; l < blocks.count; ++l) {
      for (const auto& adapter : chain) x = adapter->enter(l, x);
      x = blocks.block(l, x, blocks.tokens);
      for (const auto& adapter : chain) adapter->leave(l, x);
    }
    return x;
  }
  static BasicVar<T> by_rows(const BasicVar<T>& x, Index rows) {
    return reshape(x, {rows, x.rows() / rows, x.cols()});
  }
  Chain running(const ForwardContext* context) const {
    return this->runs_one(context) ? this->chain_of(*context->only) : this->chain();
  }
  static BasicVar<T> flat(const BasicVar<T>& x) { return reshape(x, {x.rows(), x.cols()}); }
};

template <std::floating_point T>
struct BasicSiteTable;
template <std::floating_point T>
class BasicKvCache;

/// Sizes of a stack of blocks of the model's own kind; what is not given is as in the model.
struct MirrorSizes {
  Index layers = 1;
  std::optional<Index> hidden_size, heads, intermediate_size;
  /// The widths of the model, of its heads and of its feed-forward networks are divided by it.
  Index reduction = 1;
  bool embeddings = true;  ///< false: none, `embed` is not asked for
};

/// A stack of blocks of a model's own kind with weights of its own, for adapters that are a small
/// network beside the model. Its weights are zeros until parts on its sites give it others; the
/// sites have the paths that they have below the model's own stack.
template <std::floating_point T>
class MirrorStack {
 public:
  virtual ~MirrorStack() = default;
  virtual BasicSiteTable<T>& sites() = 0;
  /// Rows of its own embedding: [ids, width].
  virtual BasicVar<T> embed(BasicTape<T>& tape, const std::vector<std::int32_t>& ids) const = 0;
  /// x: [batch · tokens, width]; mask: [batch · tokens], 1 = a real token, empty: all are; cache:
  /// of the tokens before these, which go into it, null: there are none.
  virtual BasicVar<T> run(const BasicVar<T>& x, Index batch, const std::vector<unsigned char>& mask,
                          BasicKvCache<T>* cache) const = 0;
  /// True if a norm follows its last block; else the caller may want one of his own.
  virtual bool ends_in_norm() const = 0;
};

/// Sizes of a model that adapters are made from.
struct ModelInfo {
  std::string architecture;  ///< "llama", "bert", … as config.json's model_type
  Index hidden_size = 0;
  Index layers = 0;
  Index heads = 0;
  Index kv_heads = 0;
  Index head_dim = 0;
  Index vocabulary = 0;
  std::vector<std::string> output_layers = {};  ///< paths of heads that "all-linear" leaves out
  bool encoder_decoder = false;
  kernels::Activation activation = kernels::Activation::silu;  ///< of the feed-forward blocks
};

/// All sites of a model, in the order of its modules.
template <std::floating_point T>
struct BasicSiteTable {
  ModelInfo info;
  std::vector<BasicLinearSite<T>*> linear;
  std::vector<BasicEmbeddingSite<T>*> embedding;
  std::vector<BasicNormSite<T>*> norm;
  std::vector<BasicHiddenSite<T>*> hidden;
  std::vector<BasicAttentionSite<T>*> attention;
  BasicPromptSite<T>* prompt = nullptr;
  BasicPassSite<T>* pass = nullptr;
  BasicStackSite<T>* stack = nullptr;
  /// Makes a stack of blocks like those of the model. Null where the model cannot.
  std::function<std::unique_ptr<MirrorStack<T>>(const MirrorSizes&)> mirror;
  /// Rebuilds the stack of blocks from ranges [start, end) of the old one: shared weights, sites of
  /// their own. Null where the model cannot. All pointers of the table are new afterwards.
  std::function<void(const std::vector<std::pair<Index, Index>>&)> replicate_layers;
};

using LinearSite = BasicLinearSite<float>;
using EmbeddingSite = BasicEmbeddingSite<float>;
using NormSite = BasicNormSite<float>;
using HiddenSite = BasicHiddenSite<float>;
using AttentionSite = BasicAttentionSite<float>;
using PromptSite = BasicPromptSite<float>;
using SiteTable = BasicSiteTable<float>;

}  // namespace graft::inline v0_1
