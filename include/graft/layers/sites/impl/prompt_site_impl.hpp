#pragma once

#include <algorithm>

#include "graft/layers/sites/prompt_site.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
std::vector<Index> BasicPromptSite<T>::virtual_tokens(const std::vector<std::string>& row_adapters,
                                                      Index batch, bool visual) const {
  std::vector<Index> tokens(static_cast<std::size_t>(batch), tokens_of(this->last(), visual));
  if (row_adapters.size() == tokens.size())
    for (std::size_t row = 0; row < tokens.size(); ++row)
      tokens[row] = tokens_of(alone(row_adapters[row]), visual);
  return tokens;
}

template <std::floating_point T>
BasicVar<T> BasicPromptSite<T>::before_decoder(const BasicVar<T>& x,
                                               const ForwardContext& context) const {
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

template <std::floating_point T>
void BasicPromptSite<T>::change_labels(Index batch, std::span<std::int64_t> labels,
                                       std::vector<T>& weights,
                                       const std::vector<std::string>& row_adapters,
                                       bool visual) const {
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

template <std::floating_point T>
void BasicPromptSite<T>::change(const Interface& adapter, Index batch,
                                std::span<std::int64_t> labels, std::vector<T>& weights,
                                bool visual) {
  const auto width = labels.size() / static_cast<std::size_t>(batch);
  if (!adapter.predicts())
    for (auto at = static_cast<std::size_t>(adapter.tokens_with(visual)); at < labels.size();
         at += width)
      labels[at] = kIgnoredLabel;
  adapter.change_labels(batch, labels, weights);
}

template <std::floating_point T>
BasicVar<T> BasicPromptSite<T>::by_row(const BasicVar<T>& x, const ForwardContext& context) const {
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

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
template class BasicPromptSite<float>;
template class BasicPromptSite<double>;
#endif

}  // namespace graft::inline v0_1
