#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graft/layers/sites/attention_site.hpp"
#include "graft/layers/sites/embedding_site.hpp"
#include "graft/layers/sites/hidden_site.hpp"
#include "graft/layers/sites/linear_site.hpp"
#include "graft/layers/sites/norm_site.hpp"
#include "graft/layers/sites/pass_site.hpp"
#include "graft/layers/sites/prompt_site.hpp"
#include "graft/layers/sites/stack_site.hpp"

namespace graft::inline v0_1 {

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

  bool is_output_layer(const std::string& path) const {
    return std::find(output_layers.begin(), output_layers.end(), path) != output_layers.end();
  }
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

using SiteTable = BasicSiteTable<float>;

}  // namespace graft::inline v0_1
