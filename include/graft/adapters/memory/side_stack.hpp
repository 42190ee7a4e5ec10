#pragma once

#include <algorithm>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/full_copy.hpp"
#include "graft/adapters/memory/side_tuning.hpp"
#include "graft/adapters/target_match.hpp"
#include "graft/base/order.hpp"
#include "graft/layers/kv_cache.hpp"

namespace graft::inline v0_1::detail {

/// What ladders beside a frozen model have in common: they read its hidden states without a
/// gradient, run a narrow stack of blocks of the model's own kind, and give its head something
/// else.
///
/// State 0 is the input of the first block, state l the output of block l. The side blocks stand
/// beside some of the blocks; before each its method mixes what came from the side block before
/// with a state. They begin as parts of the blocks that they stand beside: the elements of the
/// hidden state that have the largest weights, the same for all, and evenly spaced ones of each
/// head (which keeps the angles of rotary positions) and of the feed-forward network.
template <std::floating_point T>
class SideStack : public AdapterPart<T>, public StackAdapterInterface<T> {
 public:
  std::vector<AdapterTensor<T>> tensors() const override { return tensors_; }
  std::string merge_reason() const override {
    return concat(method_, " is a network beside the model; that is no change of a weight");
  }

  void begin(BasicTape<T>&) const override { states_.clear(); }
  BasicVar<T> enter(Index layer, const BasicVar<T>& x) const override {
    if (layer == 0) states_.push_back(x.detach());
    return x;
  }
  void leave(Index layer, const BasicVar<T>& x) const override {
    if (std::find(blocks_.begin(), blocks_.end(), layer) != blocks_.end())
      states_.push_back(x.detach());
  }
  BasicVar<T> finish(const BasicVar<T>& x) const override {
    const auto* context = x.tape().template context<ForwardContext>();
    if (context == nullptr || context->batch < 1 ||
        (!context->token_mask.empty() && std::ssize(context->token_mask) != x.rows()))
      throw ShapeError(
          concat(method_, ": ", x.rows(),
                 " hidden states, not those of the batch; virtual tokens have no side"));
    auto s = mirror_->run(first(states_.front()), context->batch, context->token_mask,
                          cache_of(x.tape(), *context));
    if (norm_) s = norm_->apply(last_norm_, s);
    const auto y = mixed(s, x);
    states_.clear();
    return y;
  }

 protected:
  /// `blocks`: those that a side block stands beside, in order; empty: all.
  SideStack(std::string method, std::string prefix, const std::string& name, Index reduction,
            std::vector<Index> blocks, const BasicSiteTable<T>& table, InitContext<T>& context)
      : method_(std::move(method)), prefix_(std::move(prefix)), blocks_(std::move(blocks)) {
    if (table.stack == nullptr || !table.mirror)
      throw ValueError(concat(method_, ": the model (", table.info.architecture,
                              ") cannot make a stack of blocks like its own"));
    if (blocks_.empty()) {
      blocks_.resize(static_cast<std::size_t>(table.info.layers));
      std::iota(blocks_.begin(), blocks_.end(), Index{0});
    }
    for (std::size_t i = 0; i < blocks_.size(); ++i)
      if (blocks_[i] < 0 || blocks_[i] >= table.info.layers ||
          (i > 0 && blocks_[i] <= blocks_[i - 1]))
        throw ValueError(concat(method_, ": side block beside block ", blocks_[i], " of ",
                                table.info.layers, ", expected rising numbers"));
    MirrorSizes sizes;
    sizes.layers = std::ssize(blocks_);
    sizes.reduction = reduction;
    sizes.embeddings = false;
    try {
      mirror_ = table.mirror(sizes);
    } catch (const ValueError& error) {
      throw ValueError(concat(method_, ": reduction_factor ", reduction, ": ", error.what()));
    }
    width_ = mirror_->sites().info.hidden_size;
    fill(name, table, context);
    mixer_ = std::make_shared<Mixer>(*this);
    mirror_->sites().stack->adapters().push_back({name, mixer_});
    mirror_->sites().stack->activate({name});
  }

  /// Input of the first side block, before the mixing, of state 0.
  virtual BasicVar<T> first(const BasicVar<T>& h) const = 0;
  /// Input of side block l, of what came before it and the state that it reads.
  virtual BasicVar<T> mix(Index l, const BasicVar<T>& s, const BasicVar<T>& h) const = 0;
  /// What the head gets, of the side network's and the model's own result.
  virtual BasicVar<T> mixed(const BasicVar<T>& s, const BasicVar<T>& x) const = 0;

  /// A tensor of the method's own.
  BasicParameter<T> put(const std::string& name, BasicParameter<T> parameter) {
    tensors_.push_back(shared_tensor(prefix_ + name, parameter));
    return parameter;
  }
  Index width() const { return width_; }
  Index side_blocks() const { return std::ssize(blocks_); }

 private:
  /// Mixes between the side blocks.
  class Mixer final : public StackAdapterInterface<T> {
   public:
    explicit Mixer(const SideStack& owner) : owner_(&owner) {}
    void begin(BasicTape<T>&) const override {}
    BasicVar<T> enter(Index l, const BasicVar<T>& s) const override {
      return owner_->mix(l, s, owner_->states_.at(static_cast<std::size_t>(l + 1)));
    }
    void leave(Index, const BasicVar<T>&) const override {}

   private:
    const SideStack* owner_;
  };

  /// Keys and values of the side network for text that goes on from a cache of the model's; it
  /// serves the one text that was read last.
  BasicKvCache<T>* cache_of(const BasicTape<T>& tape, const ForwardContext& context) const {
    if (tape.gradients() || context.batch != 1 || context.ids.empty()) return nullptr;
    if (context.past_ids.empty()) cache_.clear();
    if (context.past_ids != cache_.ids)
      throw ValueError(concat(method_,
                              ": the text before these tokens is not what the side network "
                              "read last; generate one text at a time"));
    cache_.ids.insert(cache_.ids.end(), context.ids.begin(), context.ids.end());
    return &cache_;
  }

  /// The model's layer that one of the side network stands beside; null: none.
  template <class Site>
  const Site* beside(const std::vector<Site*>& sites, const std::string& path) const {
    const Index l = layer_of(path);
    if (l < 0) return nullptr;
    auto renamed = "." + path;
    const auto number = concat(".", l, ".");
    renamed.replace(renamed.find(number), number.size(),
                    concat(".", blocks_[static_cast<std::size_t>(l)], "."));
    for (const auto* site : sites)
      if (("." + site->path()).ends_with(renamed)) return site;
    return nullptr;
  }
  /// Elements of the hidden state with the largest sum of squares over the matrices that read or
  /// write them, in their order.
  std::vector<Index> largest_elements(const BasicSiteTable<T>& table) const {
    std::vector<double> scores(static_cast<std::size_t>(table.info.hidden_size), 0);
    for (const auto* site : mirror_->sites().linear) {
      const auto* model = beside(table.linear, site->path());
      if (model == nullptr) continue;
      const auto w = model->base().dense_weight();
      const bool rows = is_last(table, *model);
      for (Index o = 0; o < w.rows(); ++o)
        for (Index i = 0; i < w.cols(); ++i)
          scores[static_cast<std::size_t>(rows ? o : i)] +=
              static_cast<double>(w(o, i)) * static_cast<double>(w(o, i));
    }
    auto order = largest_first(scores);
    order.resize(static_cast<std::size_t>(width_));
    std::sort(order.begin(), order.end());
    return order;
  }
  /// True for the layer of a sublayer that writes the hidden state.
  static bool is_last(const BasicSiteTable<T>& table, const BasicLinearSite<T>& site) {
    return std::any_of(table.hidden.begin(), table.hidden.end(), [&](const auto* hidden) {
      return concat(hidden->path(), ".", hidden->output_name()) == site.path();
    });
  }
  static std::vector<Index> spaced(Index from, Index count) {
    std::vector<Index> index;
    for (Index i = 0; i < count; ++i) index.push_back(i * (from / count));
    return index;
  }
  static BasicTensor<T> picked(const BasicTensor<T>& v, const std::vector<Index>& index) {
    auto part = BasicTensor<T>::empty({std::ssize(index)});
    for (Index i = 0; i < part.size(); ++i) part[i] = v[index[static_cast<std::size_t>(i)]];
    return part;
  }
  /// Gives the side blocks tensors to train.
  void fill(const std::string& name, const BasicSiteTable<T>& table, InitContext<T>& context) {
    auto& own = mirror_->sites();
    const auto hidden = context.loading ? std::vector<Index>() : largest_elements(table);
    const auto keep = [&](auto& site, auto part) {
      const auto below = site.path().substr(site.path().find('.') + 1);
      for (const auto& tensor : part->tensors())
        tensors_.push_back(
            shared_tensor(concat(prefix_, below, ".", tensor.name), tensor.parameter));
      site.adapters().push_back({name, part});
      site.activate({name});
    };
    for (auto* site : own.linear) {
      const auto* model = beside(table.linear, site->path());
      if (model == nullptr) continue;  // a head
      auto w = BasicTensor<T>::zeros({site->out_features(), site->in_features()});
      auto bias = site->base().bias();
      if (!context.loading) {
        const bool last = is_last(table, *model);
        const auto rows = last ? hidden : spaced(model->out_features(), w.rows()),
                   cols = last ? spaced(model->in_features(), w.cols()) : hidden;
        const auto from = model->base().dense_weight();
        for (Index o = 0; o < w.rows(); ++o)
          for (Index i = 0; i < w.cols(); ++i)
            w(o, i) = from(rows[static_cast<std::size_t>(o)], cols[static_cast<std::size_t>(i)]);
        if (bias && model->base().bias()) bias = picked(model->base().bias(), rows);
      }
      keep(*site, std::make_shared<FullLinear<T>>(w, bias));
    }
    for (auto* site : own.norm) {
      auto norm = site->norm();
      const auto* model = beside(table.norm, site->path());
      if (model == nullptr && !mirror_->ends_in_norm()) continue;  // of the embeddings
      if (model != nullptr && !context.loading &&
          model->norm().weight.size() == table.info.hidden_size) {
        norm.weight = picked(model->norm().weight, hidden);
        if (norm.bias) norm.bias = picked(model->norm().bias, hidden);
      }
      keep(*site, std::make_shared<FullNorm<T>>(norm));
      last_norm_ = site->norm();
    }
    if (mirror_->ends_in_norm()) return;
    norm_ = std::make_shared<FullNorm<T>>(last_norm_);
    for (const auto& tensor : norm_->tensors())
      tensors_.push_back(shared_tensor(concat(prefix_, "norm.", tensor.name), tensor.parameter));
  }

  std::string method_, prefix_;
  std::vector<Index> blocks_;
  std::unique_ptr<MirrorStack<T>> mirror_;
  Index width_ = 0;
  std::shared_ptr<Mixer> mixer_;
  BasicNorm<T> last_norm_;             // like those of the side blocks
  std::shared_ptr<FullNorm<T>> norm_;  // at the end, where the blocks have none
  std::vector<AdapterTensor<T>> tensors_;
  mutable BasicKvCache<T> cache_;
  mutable std::vector<BasicVar<T>> states_;
};

/// Puts a ladder on the stack of a model.
template <std::floating_point T, class Set>
void add_side_stack(std::shared_ptr<SideStack<T>> side, Set& set, BasicSiteTable<T>& table) {
  table.stack->adapters().push_back({set.name(), side});
  set.add_part(table.stack->path(), side);
}

}  // namespace graft::inline v0_1::detail
