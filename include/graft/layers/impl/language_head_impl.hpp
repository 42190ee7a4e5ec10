#pragma once

#include <algorithm>
#include <utility>

#include "graft/layers/language_head.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicVar<T> logits_of_rows(const BasicVar<T>& hidden, const BasicLinearSite<T>& head,
                           const std::vector<Index>& rows, std::type_identity_t<T> cap) {
  const auto* context = hidden.tape().template context<ForwardContext>();
  // Where each row of a batch runs an adapter of its own, all go through the head together.
  const bool together = context != nullptr && !context->row_adapters.empty();
  const auto y = together ? head(hidden) : hidden;
  const auto picked = gather_rows(reshape(y, {y.rows(), y.cols()}), rows);
  return capped_logits(together ? picked : head(picked), cap);
}

template <std::floating_point T>
BasicVar<T> linear_cross_entropy(const BasicVar<T>& hidden, const BasicLinearSite<T>& head,
                                 std::span<const std::int64_t> labels, Index chunk_rows,
                                 std::vector<unsigned char>* correct, std::vector<T>* losses,
                                 std::span<const T> weights, T cap) {
  const Index rows = hidden.rows(), dim = hidden.cols(), vocabulary = head.out_features();
  const Index counted = detail::count_labels("linear_cross_entropy", labels, rows, vocabulary);
  auto& tape = hidden.tape();
  std::vector<Index> kept;
  std::vector<std::int64_t> kept_labels;
  std::vector<T> kept_weights;
  kept.reserve(static_cast<std::size_t>(counted));
  kept_labels.reserve(static_cast<std::size_t>(counted));
  kept_weights.reserve(static_cast<std::size_t>(counted));
  if (!weights.empty() && static_cast<Index>(weights.size()) != rows)
    throw ShapeError(
        concat("linear_cross_entropy: ", weights.size(), " weights for ", rows, " rows"));
  for (Index i = 0; i < rows; ++i)
    if (labels[static_cast<std::size_t>(i)] != kIgnoredLabel) {
      kept.push_back(i);
      kept_labels.push_back(labels[static_cast<std::size_t>(i)]);
      kept_weights.push_back(weights.empty() ? T{1} : weights[static_cast<std::size_t>(i)]);
    }
  if (correct != nullptr) correct->assign(static_cast<std::size_t>(counted), 0);
  if (losses != nullptr) losses->assign(static_cast<std::size_t>(counted), T{0});
  const T share = counted == 0 ? T{0} : T{1} / static_cast<T>(counted);
  const auto flat = reshape(hidden, {rows, dim});

  const auto* context = tape.template context<ForwardContext>();
  const bool frozen = !head.adapted(tape) && cap == 0;
  if (!frozen && context != nullptr && !context->row_adapters.empty()) {
    const auto logits = logits_of_rows(hidden, head, kept, cap);
    if (correct != nullptr || losses != nullptr) {
      auto work = logits.value().clone();
      auto row_losses = BasicTensor<T>::empty({counted});
      kernels::cross_entropy_rows(work.data(), counted, vocabulary, vocabulary, kept_labels.data(),
                                  share, false, row_losses.data(),
                                  correct == nullptr ? nullptr : correct->data());
      if (losses != nullptr) losses->assign(row_losses.begin(), row_losses.end());
    }
    return cross_entropy(logits, kept_labels, kept_weights);
  }
  const bool plain = frozen || correct != nullptr || losses != nullptr || !tape.gradients();
  if (!plain) {
    BasicVar<T> total = tape.constant(BasicTensor<T>::scalar(0));
    for (Index first = 0; first < counted; first += chunk_rows) {
      const Index n = std::min(chunk_rows, counted - first);
      std::vector<Index> index(kept.begin() + first, kept.begin() + first + n);
      std::vector<std::int64_t> chunk_labels(kept_labels.begin() + first,
                                             kept_labels.begin() + first + n);
      const auto chunk = gather_rows(flat, std::move(index));
      total = add(total, checkpoint(
                             [&head, cap, chunk_labels = std::move(chunk_labels),
                              chunk_weights = std::vector<T>(kept_weights.begin() + first,
                                                             kept_weights.begin() + first + n),
                              weight = share * static_cast<T>(n)](const BasicVar<T>& x) {
                               return scale(cross_entropy(capped_logits(head(x), cap), chunk_labels,
                                                          chunk_weights),
                                            weight);
                             },
                             chunk));
    }
    return total;
  }

  const bool wanted = hidden.requires_grad() && frozen;
  BasicTensor<T> gradient = wanted ? BasicTensor<T>::zeros({rows, dim}) : BasicTensor<T>{};
  T loss = 0;
  for (Index first = 0; first < counted; first += chunk_rows) {
    const Index n = std::min(chunk_rows, counted - first);
    auto x = BasicTensor<T>::empty({n, dim});
    for (Index i = 0; i < n; ++i)
      std::copy_n(hidden.value().data() + kept[static_cast<std::size_t>(first + i)] * dim, dim,
                  x.data() + i * dim);
    BasicTensor<T> logits;
    if (frozen) {
      logits = BasicTensor<T>::empty({n, vocabulary});
      head.base().forward(x.matrix(), logits.matrix());
    } else {
      BasicTape<T> inner({.gradients = false, .training = false});
      logits = capped_logits(head(inner.constant(x)), cap).value().clone();
    }
    auto chunk_losses = BasicTensor<T>::empty({n});
    kernels::cross_entropy_rows(logits.data(), n, vocabulary, vocabulary,
                                kept_labels.data() + first, share, wanted, chunk_losses.data(),
                                correct == nullptr ? nullptr : correct->data() + first);
    if (losses != nullptr) std::copy_n(chunk_losses.data(), n, losses->data() + first);
    if (!weights.empty())
      kernels::mul(chunk_losses.data(), kept_weights.data() + first, chunk_losses.data(), n);
    loss += kernels::sum(chunk_losses.data(), n);
    if (wanted) {
      head.base().backward_input(logits.matrix(), x.matrix(), nullptr, false);
      for (Index i = 0; i < n; ++i) {
        T* row = gradient.data() + kept[static_cast<std::size_t>(first + i)] * dim;
        std::copy_n(x.data() + i * dim, dim, row);
        if (!weights.empty())
          kernels::scale(kept_weights[static_cast<std::size_t>(first + i)], row, row, dim);
      }
    }
  }
  return tape.record(BasicTensor<T>::scalar(loss * share), wanted,
                     [gx = hidden.grad_ref(), gradient](const BasicTensor<T>& dy) {
                       gx.add(dy[0] == T{1} ? gradient : detail::scaled(gradient, dy[0]));
                     });
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T)                                                               \
  template BasicVar<T> logits_of_rows(const BasicVar<T>&, const BasicLinearSite<T>&,       \
                                      const std::vector<Index>&, T);                       \
  template BasicVar<T> linear_cross_entropy(                                               \
      const BasicVar<T>&, const BasicLinearSite<T>&, std::span<const std::int64_t>, Index, \
      std::vector<unsigned char>*, std::vector<T>*, std::span<const T>, T);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1
