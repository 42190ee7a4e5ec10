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

 protected:
  ~SiteAdapters() = default;
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
    if (context != nullptr && !context->row_adapters.empty() && !this->adapters().empty())
      return by_row(x, *context);
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
    const Index batch = context.batch;
    if (static_cast<Index>(context.row_adapters.size()) != batch || x.rows() % batch != 0)
      throw ShapeError(concat("linear site ", this->path(), ": ", context.row_adapters.size(),
                              " adapter names for input ", x.shape().text()));
    const auto grouped = reshape(x, {batch, x.rows() / batch, x.cols()});
    std::vector<BasicVar<T>> parts;
    std::vector<Index> position(static_cast<std::size_t>(batch), -1);
    Index placed = 0;
    for (Index first = 0; first < batch; ++first) {
      if (position[static_cast<std::size_t>(first)] >= 0) continue;
      const std::string& name = context.row_adapters[static_cast<std::size_t>(first)];
      std::vector<Index> rows;
      for (Index i = first; i < batch; ++i)
        if (context.row_adapters[static_cast<std::size_t>(i)] == name) {
          rows.push_back(i);
          position[static_cast<std::size_t>(i)] = placed++;
        }
      std::vector<std::shared_ptr<const Interface>> chain;
      for (const auto& named : this->adapters())
        if (named.name == name) chain.push_back(named.adapter);
      const bool whole = static_cast<Index>(rows.size()) == batch;
      auto& tape = x.tape();
      const auto before = tape.shared_context();
      tape.set_context(std::make_shared<ForwardContext>(context.of_rows(rows)));
      parts.push_back(run(whole ? grouped : gather_rows(grouped, std::move(rows)), chain));
      tape.set_context(before);
    }
    auto y =
        parts.size() == 1 ? parts[0] : gather_rows(concat_along(0, parts), std::move(position));
    return with_bias(reshape(y, x.shape().with_last(out_features())));
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
    return BasicEmbeddingView<T>(table_, this->chain())(tape, ids);
  }
  /// Factor that the model multiplies the rows with afterwards (Gemma), 1 for others; LoRA's term
  /// takes part in it.
  T embed_scale = 1;
  Index padding_index = -1;  ///< row that stands for padding; -1: there is none

 private:
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
  /// Number of keys that `before` puts in front of those of the text.
  virtual Index virtual_keys() const { return 0; }
};

/// The attention of a block. Kind `attention`: prefixes, gated prompts.
template <std::floating_point T>
class BasicAttentionSite : public SiteAdapters<AttentionAdapterInterface<T>> {
 public:
  using Scalar = T;

  BasicAttentionSite() = default;
  BasicAttentionSite(std::string path, Index layer_number, Index query_heads, Index key_value_heads,
                     Index head_width)
      : SiteAdapters<AttentionAdapterInterface<T>>(std::move(path)),
        layer(layer_number),
        heads(query_heads),
        kv_heads(key_value_heads),
        head_dim(head_width) {}
  Index layer = 0, heads = 1, kv_heads = 1, head_dim = 1;
  Index virtual_keys() const {
    Index count = 0;
    for (const auto& adapter : this->chain()) count += adapter->virtual_keys();
    return count;
  }
  BasicVar<T> operator()(AttentionCall<T> call) const {
    for (const auto& adapter : this->chain()) adapter->before(call);
    auto out = attention(call.q, call.k, call.v, call.options);
    for (const auto& adapter : this->chain()) out = adapter->after(call, out);
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
    if (this->last() == nullptr) return x;
    return concat_along(
        1, std::vector<BasicVar<T>>{this->last()->prompt(x.tape(), x.dim(0), context), x});
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
  std::vector<std::string> output_layers;  ///< paths of heads that "all-linear" leaves out
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
