#pragma once

#include "graft/layers/sites/linear_site.hpp"

namespace graft::inline v0_1 {

GRAFT_KERNEL Shape ConvGeometry::weight_shape(Index rows, Index channels) const {
  if (kernel.empty()) return {};
  Shape shape{rows, channels};
  for (const Index k : kernel) shape.append(k);
  return shape;
}

GRAFT_KERNEL Shape ConvGeometry::pointwise_shape(Index rows, Index channels) const {
  if (kernel.empty()) return {};
  Shape shape{rows, channels};
  for (std::size_t i = 0; i < kernel.size(); ++i) shape.append(1);
  return shape;
}

template <std::floating_point T>
bool BasicLinearSite<T>::adapted(const BasicTape<T>& tape) const {
  const auto* context = tape.template context<ForwardContext>();
  if (by_rows(context)) return true;
  if (this->runs_one(context))
    return !this->chain_of(*context->only).empty() || biases.of(*context->only);
  return !this->chain().empty() || biases.active;
}

template <std::floating_point T>
BasicVar<T> BasicLinearSite<T>::operator()(const BasicVar<T>& x) const {
  const auto* context = x.tape().template context<ForwardContext>();
  if (by_rows(context)) return by_row(x, *context);
  if (this->runs_one(context))
    return run(x, this->chain_of(*context->only), biases.of(*context->only));
  return run(x, this->chain(), biases.active);
}

template <std::floating_point T>
BasicVar<T> BasicLinearSite<T>::last(const BasicVar<T>& x) const {
  auto& tape = x.tape();
  const bool products = std::ranges::all_of(this->adapters(), [](const auto& named) {
    return named.adapter->low_rank_term().has_value();
  });
  const typename BasicTape<T>::Unread unread(tape, tape.options().result_unread && products);
  return (*this)(x);
}

template <std::floating_point T>
BasicVar<T> BasicLinearSite<T>::run(const BasicVar<T>& x,
                                    std::span<const std::shared_ptr<const Interface>> chain,
                                    const BasicParameter<T>& bias) const {
  const auto y = BasicLinearView<T>(base_, chain)(x);
  if (!bias) return y;
  const auto change = biases.change(x.tape(), bias, base_.bias());
  auto total = change;
  for (const auto& adapter : chain)
    if (const auto factor = adapter->bias_factor(x.tape())) total = add(total, mul(change, factor));
  return add(y, total);
}

template <std::floating_point T>
BasicVar<T> BasicLinearSite<T>::by_row(const BasicVar<T>& x, const ForwardContext& context) const {
  const RowGroups groups(context, this->path(), x.rows());
  if (auto y = low_rank_rows(x, groups)) return y;
  auto parts = groups.each(x.tape(), context, [&](const RowGroups::Group& group) {
    return run(groups.part(x, group), this->chain_of(group.name), biases.of(group.name));
  });
  return groups.joined(std::move(parts), x.shape().with_last(out_features()));
}

template <std::floating_point T>
BasicVar<T> BasicLinearSite<T>::low_rank_rows(const BasicVar<T>& x, const RowGroups& groups) const {
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

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
template class BasicLinearSite<float>;
template class BasicLinearSite<double>;
#endif

}  // namespace graft::inline v0_1
