#pragma once

#include <vector>

#include "graft/layers/sites/embedding_site.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicVar<T> BasicEmbeddingSite<T>::operator()(BasicTape<T>& tape,
                                              std::span<const std::int32_t> ids) const {
  const auto* context = tape.template context<ForwardContext>();
  if (this->runs_by_row(context)) return by_row(tape, ids, *context);
  if (this->runs_one(context)) {
    const auto chain = this->chain_of(*context->only);
    return BasicEmbeddingView<T>(table_, chain)(tape, ids);
  }
  return BasicEmbeddingView<T>(table_, this->chain())(tape, ids);
}

template <std::floating_point T>
BasicVar<T> BasicEmbeddingSite<T>::by_row(BasicTape<T>& tape, std::span<const std::int32_t> ids,
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

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
template class BasicEmbeddingSite<float>;
template class BasicEmbeddingSite<double>;
#endif

}  // namespace graft::inline v0_1
