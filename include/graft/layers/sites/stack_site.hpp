#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

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

}  // namespace graft::inline v0_1
