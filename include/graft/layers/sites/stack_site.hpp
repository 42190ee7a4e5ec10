#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <vector>

#include "graft/config.hpp"
#include "graft/layers/sites/row_groups.hpp"
#include "graft/layers/sites/site_adapters.hpp"

namespace graft::inline v0_1 {

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
  BlockTokens of_rows(const std::vector<Index>& rows) const;
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

  void begin(BasicTape<T>& tape) const;
  BasicVar<T> enter(Index layer, BasicVar<T> x) const;
  void leave(Index layer, const BasicVar<T>& x) const;
  BasicVar<T> finish(BasicVar<T> x) const;
  /// True if some adapter here runs blocks itself: the model then leaves them to `run`.
  bool runs_blocks() const {
    return std::any_of(this->adapters().begin(), this->adapters().end(),
                       [](const auto& named) { return named.adapter->runs_blocks(); });
  }
  /// x through all blocks. @throws ValueError where adapters that go along with the hidden states
  /// are active beside one that runs the blocks
  BasicVar<T> run(const BasicVar<T>& x, const StackBlocks<T>& blocks) const;

 private:
  using Chain = typename SiteAdapters<StackAdapterInterface<T>>::Chain;

  static BasicVar<T> run(const Chain& chain, BasicVar<T> x, const StackBlocks<T>& blocks);
  static BasicVar<T> by_rows(const BasicVar<T>& x, Index rows) {
    return reshape(x, {rows, x.rows() / rows, x.cols()});
  }
  Chain running(const ForwardContext* context) const {
    return this->runs_one(context) ? this->chain_of(*context->only) : this->chain();
  }
  static BasicVar<T> flat(const BasicVar<T>& x) { return reshape(x, {x.rows(), x.cols()}); }
};

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/layers/sites/impl/stack_site_impl.hpp"
#endif
