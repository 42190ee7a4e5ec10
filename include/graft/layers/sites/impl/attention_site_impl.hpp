#pragma once

#include <memory>
#include <utility>

#include "graft/layers/sites/attention_site.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicAttentionSite<T>::BasicAttentionSite(std::string path, Index layer_number, Index query_heads,
                                          Index key_value_heads, Index head_width,
                                          AttentionRole reads)
    : SiteAdapters<AttentionAdapterInterface<T>>(std::move(path)),
      layer(layer_number),
      heads(query_heads),
      kv_heads(key_value_heads),
      head_dim(head_width),
      role(reads) {}

template <std::floating_point T>
std::vector<Index> BasicAttentionSite<T>::virtual_keys(const ForwardContext* context,
                                                       Index batch) const {
  const auto size = static_cast<std::size_t>(batch);
  if (this->adapters().empty()) return std::vector<Index>(size, 0);
  if (this->runs_one(context))
    return std::vector<Index>(size, keys_of(this->chain_of(*context->only)));
  std::vector<Index> keys(size, keys_of(this->chain()));
  if (this->runs_by_row(context) && context->row_adapters.size() == size)
    for (std::size_t row = 0; row < size; ++row)
      keys[row] = keys_of(this->chain_of(context->row_adapters[row]));
  return keys;
}

template <std::floating_point T>
BasicVar<T> BasicAttentionSite<T>::operator()(AttentionCall<T> call) const {
  call.options.compute = compute;
  const auto* context = call.q.tape().template context<ForwardContext>();
  if (this->runs_by_row(context)) return by_row(call, *context);
  return this->runs_one(context) ? run(call, this->chain_of(*context->only))
                                 : run(call, this->chain());
}

template <std::floating_point T>
BasicVar<T> BasicAttentionSite<T>::attend(AttentionCall<T>& call, const Chain& chain) {
  for (const auto& adapter : chain) adapter->before(call);
  auto out = attention(call.q, call.k, call.v, call.options);
  for (const auto& adapter : chain) out = adapter->after(call, out);
  return out;
}

template <std::floating_point T>
BasicVar<T> BasicAttentionSite<T>::run(AttentionCall<T>& call, const Chain& chain) {
  auto out = attend(call, chain);
  if (call.output == nullptr) return out;
  out = (*call.output)(out);
  for (const auto& adapter : chain) out = adapter->projected(call, out);
  return out;
}

template <std::floating_point T>
BasicVar<T> BasicAttentionSite<T>::by_row(const AttentionCall<T>& call,
                                          const ForwardContext& context) const {
  const RowGroups groups(context, this->path(), call.q.rows());
  auto& tape = call.q.tape();
  std::vector<AttentionCall<T>> calls;
  const auto rows_of = [&](const BasicVar<T>& x, const RowGroups::Group& group) {
    const auto part = groups.part(x, group);
    return reshape(part, {part.rows(), part.cols()});
  };
  auto parts = groups.each(tape, context, [&](const RowGroups::Group& group) {
    auto own = call;
    if (call.input) own.input = rows_of(call.input, group);
    own.q = rows_of(call.q, group);
    own.k = rows_of(call.k, group);
    own.v = rows_of(call.v, group);
    own.options.batch = std::ssize(group.rows);
    if (call.options.key_mask) {
      const auto& mask = *call.options.key_mask;
      const auto width = std::ssize(mask) / context.batch;
      std::vector<unsigned char> some;
      for (const Index row : group.rows)
        some.insert(some.end(), mask.begin() + row * width, mask.begin() + (row + 1) * width);
      own.options.key_mask = std::make_shared<std::vector<unsigned char>>(std::move(some));
    }
    auto out = attend(own, this->chain_of(group.name));
    calls.push_back(std::move(own));
    return reshape(out, {std::ssize(group.rows), out.rows() / std::ssize(group.rows), out.cols()});
  });
  const Index width = parts.front().cols();
  auto out = groups.joined(std::move(parts), call.q.shape().with_last(width));
  if (call.output == nullptr) return out;
  out = (*call.output)(out);
  std::size_t next = 0;
  auto projected = groups.each(tape, context, [&](const RowGroups::Group& group) {
    auto part = rows_of(out, group);
    for (const auto& adapter : this->chain_of(group.name))
      part = adapter->projected(calls[next], part);
    ++next;
    return reshape(part,
                   {std::ssize(group.rows), part.rows() / std::ssize(group.rows), part.cols()});
  });
  return groups.joined(std::move(projected), out.shape());
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
template class BasicAttentionSite<float>;
template class BasicAttentionSite<double>;
#endif

}  // namespace graft::inline v0_1
