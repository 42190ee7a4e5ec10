#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "graft/autograd/ops/attention.hpp"
#include "graft/autograd/ops/norm.hpp"
#include "graft/autograd/ops/shape.hpp"
#include "graft/layers/any_linear.hpp"
#include "graft/layers/embedding_table.hpp"
#include "graft/layers/forward_context.hpp"

/// The places of a model where adapters may go. A model owns its sites, names them by path and
/// calls them in its forward pass; adapters are attached from outside and the model knows none of
/// them.
namespace graft {

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
      tape.set_context(std::make_shared<ForwardContext>(context.of_rows(group.rows)));
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
  /// @throws ValueError if a row names an adapter of this site, for sites that run all rows alike.
  void refuse_row_adapters(const ForwardContext* context) const {
    if (!runs_by_row(context)) return;
    for (const auto& named : adapters_)
      if (std::find(context->row_adapters.begin(), context->row_adapters.end(), named.name) !=
          context->row_adapters.end())
        throw ValueError(concat("site ", path_, ": adapter '", named.name,
                                "' cannot run for some rows of a batch only"));
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
  ConvGeometry conv;
  ExpertGeometry expert;
  /// A trained bias in place of the base's, or empty.
  BasicParameter<T> bias_override;

  BasicVar<T> operator()(const BasicVar<T>& x) const {
    const auto* context = x.tape().template context<ForwardContext>();
    if (this->runs_by_row(context)) return by_row(x, *context);
    return with_bias(run(x, this->chain()));
  }

 private:
  BasicVar<T> run(const BasicVar<T>& x,
                  std::span<const std::shared_ptr<const Interface>> chain) const {
    return BasicLinearView<T>(base_, chain)(x);
  }
  BasicVar<T> with_bias(const BasicVar<T>& y) const {
    if (!bias_override) return y;
    auto& tape = y.tape();
    return add(y, sub(tape.parameter(bias_override), tape.constant(base_.bias())));
  }
  /// One product per adapter that occurs in the batch, over that adapter's rows together.
  BasicVar<T> by_row(const BasicVar<T>& x, const ForwardContext& context) const {
    if (bias_override)
      throw ValueError(concat("site ", this->path(),
                              ": a trained bias cannot run for some rows of "
                              "a batch only"));
    const RowGroups groups(context, this->path(), x.rows());
    auto parts = groups.each(x.tape(), context, [&](const RowGroups::Group& group) {
      return run(groups.part(x, group), this->chain_of(group.name));
    });
    return groups.joined(std::move(parts), x.shape().with_last(out_features()));
  }

  BasicAnyLinear<T> base_;
};

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
  /// A trained bias in place of the norm's, or empty.
  BasicParameter<T> bias_override;
  BasicVar<T> operator()(const BasicVar<T>& x) const {
    const auto* context = x.tape().template context<ForwardContext>();
    if (this->runs_by_row(context)) {
      const RowGroups groups(*context, this->path(), x.rows());
      auto parts = groups.each(x.tape(), *context, [&](const RowGroups::Group& group) {
        const auto chain = this->chain_of(group.name);
        const auto part = groups.part(x, group);
        return chain.empty() ? norm_(part) : chain.back()->apply(norm_, part);
      });
      return groups.joined(std::move(parts), x.shape());
    }
    auto y = this->last() != nullptr ? this->last()->apply(norm_, x) : norm_(x);
    if (!bias_override) return y;
    auto& tape = y.tape();
    return add(y, norm_.bias ? sub(tape.parameter(bias_override), tape.constant(norm_.bias))
                             : tape.parameter(bias_override));
  }

 private:
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
    for (const auto& adapter : this->chain()) output = adapter->apply(input, output, residual);
    return output;
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
  Index virtual_keys() const {
    Index count = 0;
    for (const auto& adapter : this->chain()) count += adapter->virtual_keys();
    return count;
  }
  BasicVar<T> operator()(AttentionCall<T> call) const {
    this->refuse_row_adapters(call.q.tape().template context<ForwardContext>());
    for (const auto& adapter : this->chain()) adapter->before(call);
    auto out = attention(call.q, call.k, call.v, call.options);
    for (const auto& adapter : this->chain()) out = adapter->after(call, out);
    if (call.output == nullptr) return out;
    out = (*call.output)(out);
    for (const auto& adapter : this->chain()) out = adapter->projected(call, out);
    return out;
  }
};

/// Adapter of a prompt site behind type erasure.
template <std::floating_point T>
class PromptAdapterInterface {
 public:
  virtual ~PromptAdapterInterface() = default;
  virtual Index virtual_tokens() const = 0;
  /// Embeddings of the virtual tokens for each row of the batch: [batch, virtual_tokens, dim].
  virtual BasicVar<T> prompt(BasicTape<T>& tape, Index batch,
                             const ForwardContext& context) const = 0;
  /// The same for the decoder of an encoder-decoder model; empty: its input stays as it is.
  virtual BasicVar<T> decoder_prompt(BasicTape<T>&, Index, const ForwardContext&) const {
    return {};
  }
  /// May change what is to be predicted: labels [batch, virtual_tokens + tokens], those of virtual
  /// tokens -100 so far, and the factor of the loss of each (empty: one).
  virtual void change_labels(Index, std::span<std::int64_t>, std::vector<T>&) const {}
};

/// Where virtual tokens enter: between the embedding and the first block. Kind `embedding`.
template <std::floating_point T>
class BasicPromptSite : public SiteAdapters<PromptAdapterInterface<T>> {
 public:
  using Scalar = T;

  BasicPromptSite() = default;
  BasicPromptSite(std::string path, Index dim)
      : SiteAdapters<PromptAdapterInterface<T>>(std::move(path)), dim_(dim) {}
  Index dim() const { return dim_; }
  Index virtual_tokens() const {
    return this->last() != nullptr ? this->last()->virtual_tokens() : 0;
  }
  /// x: [batch, tokens, dim] -> [batch, virtual_tokens + tokens, dim].
  BasicVar<T> operator()(const BasicVar<T>& x, const ForwardContext& context) const {
    this->refuse_row_adapters(&context);
    if (this->last() == nullptr) return x;
    return concat_along(
        1, std::vector<BasicVar<T>>{this->last()->prompt(x.tape(), x.dim(0), context), x});
  }
  /// The same in front of a decoder, for the adapters that have something to put there.
  BasicVar<T> before_decoder(const BasicVar<T>& x, const ForwardContext& context) const {
    if (this->last() == nullptr) return x;
    const auto rows = this->last()->decoder_prompt(x.tape(), x.dim(0), context);
    return rows ? concat_along(1, std::vector<BasicVar<T>>{rows, x}) : x;
  }
  void change_labels(Index batch, std::span<std::int64_t> labels, std::vector<T>& weights) const {
    if (this->last() != nullptr) this->last()->change_labels(batch, labels, weights);
  }

 private:
  Index dim_ = 0;
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

/// The forward pass of a model as a whole. Kind `pass`: adapters that run the model twice.
template <std::floating_point T>
class BasicPassSite : public SiteAdapters<PassAdapterInterface<T>> {
 public:
  using Scalar = T;
  using SiteAdapters<PassAdapterInterface<T>>::SiteAdapters;
  void operator()(BasicTape<T>& tape,
                  const std::function<BasicTensor<T>(BasicTape<T>&)>& hidden_states) const {
    for (const auto& adapter : this->chain()) adapter->before(tape, hidden_states);
  }
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

}  // namespace graft
