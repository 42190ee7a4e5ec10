#pragma once

#include <utility>

#include "graft/layers/sites/stack_site.hpp"

namespace graft::inline v0_1 {

GRAFT_KERNEL BlockTokens BlockTokens::of_rows(const std::vector<Index>& rows) const {
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

template <std::floating_point T>
void BasicStackSite<T>::begin(BasicTape<T>& tape) const {
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

template <std::floating_point T>
BasicVar<T> BasicStackSite<T>::enter(Index layer, BasicVar<T> x) const {
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

template <std::floating_point T>
void BasicStackSite<T>::leave(Index layer, const BasicVar<T>& x) const {
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

template <std::floating_point T>
BasicVar<T> BasicStackSite<T>::finish(BasicVar<T> x) const {
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

template <std::floating_point T>
BasicVar<T> BasicStackSite<T>::run(const BasicVar<T>& x, const StackBlocks<T>& blocks) const {
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

template <std::floating_point T>
BasicVar<T> BasicStackSite<T>::run(const Chain& chain, BasicVar<T> x,
                                   const StackBlocks<T>& blocks) {
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

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
template class BasicStackSite<float>;
template class BasicStackSite<double>;
#endif

}  // namespace graft::inline v0_1
