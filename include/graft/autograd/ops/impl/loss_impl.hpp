#pragma once

#include <algorithm>
#include <cmath>

#include "graft/autograd/ops/loss.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicVar<T> binary_cross_entropy(const BasicVar<T>& logits, const BasicTensor<T>& targets) {
  if (targets.size() != logits.size())
    throw ShapeError(concat("binary_cross_entropy: ", targets.size(), " targets for logits ",
                            logits.shape().text()));
  const auto x = logits.value();
  const T share = T{1} / static_cast<T>(std::max<Index>(1, x.size()));
  auto gradient = BasicTensor<T>::empty(x.shape());
  T loss = 0;
  for (Index i = 0; i < x.size(); ++i) {
    const T e = std::exp(-std::abs(x[i]));
    loss += std::max(x[i], T{0}) - x[i] * targets[i] + std::log1p(e);
    gradient[i] = share * ((x[i] >= 0 ? T{1} : e) / (T{1} + e) - targets[i]);
  }
  return logits.tape().record(BasicTensor<T>::scalar(loss * share), logits.requires_grad(),
                              [gx = logits.grad_ref(), gradient](const BasicTensor<T>& dy) {
                                gx.add(dy[0] == T{1} ? gradient : detail::scaled(gradient, dy[0]));
                              });
}

}  // namespace graft::inline v0_1

namespace graft::inline v0_1::detail {

GRAFT_KERNEL Index count_labels(const char* operation, std::span<const std::int64_t> labels,
                                Index rows, Index classes) {
  if (static_cast<Index>(labels.size()) != rows)
    throw ShapeError(concat(operation, ": ", labels.size(), " labels for ", rows, " rows"));
  Index counted = 0;
  for (std::int64_t label : labels) {
    if (label == kIgnoredLabel) continue;
    if (label < 0 || label >= classes)
      throw ValueError(
          concat(operation, ": label ", label, ", expected [0, ", classes, ") or ", kIgnoredLabel));
    ++counted;
  }
  return counted;
}

}  // namespace graft::inline v0_1::detail

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicVar<T> cross_entropy(const BasicVar<T>& logits, std::span<const std::int64_t> labels,
                          std::span<const std::type_identity_t<T>> weights) {
  const Index rows = logits.rows(), classes = logits.cols();
  const Index counted = detail::count_labels("cross_entropy", labels, rows, classes);
  auto work = logits.value().clone();
  auto losses = BasicTensor<T>::empty({rows});
  const T share = counted == 0 ? T{0} : T{1} / static_cast<T>(counted);
  kernels::cross_entropy_rows(work.data(), rows, classes, classes, labels.data(), share,
                              logits.requires_grad(), losses.data(),
                              static_cast<unsigned char*>(nullptr));
  if (!weights.empty()) {
    if (static_cast<Index>(weights.size()) != rows)
      throw ShapeError(concat("cross_entropy: ", weights.size(), " weights for ", rows, " rows"));
    kernels::mul(losses.data(), weights.data(), losses.data(), rows);
    if (logits.requires_grad())
      for (Index i = 0; i < rows; ++i)
        kernels::scale(weights[static_cast<std::size_t>(i)], work.data() + i * classes,
                       work.data() + i * classes, classes);
  }
  const T loss = kernels::sum(losses.data(), rows) * share;
  return logits.tape().record(BasicTensor<T>::scalar(loss), logits.requires_grad(),
                              [gx = logits.grad_ref(), work](const BasicTensor<T>& dy) {
                                gx.add(dy[0] == T{1} ? work : detail::scaled(work, dy[0]));
                              });
}

template <std::floating_point T>
BasicVar<T> kl_divergence(const BasicVar<T>& p, const BasicVar<T>& q,
                          const std::vector<T>& weights) {
  if (p.shape() != q.shape() ||
      (!weights.empty() && static_cast<Index>(weights.size()) != p.rows()))
    throw ShapeError(concat("kl_divergence: ", p.shape().text(), " and ", q.shape().text(),
                            " with ", weights.size(), " weights"));
  const auto log_p = sub(p, log_sum_exp(p)), log_q = sub(q, log_sum_exp(q));
  auto terms = reshape(sum_axis(mul(softmax(p), sub(log_p, log_q)), -1, true), {p.rows()});
  T counted = static_cast<T>(p.rows());
  if (!weights.empty()) {
    counted = 0;
    for (const T w : weights) counted += w;
    terms = mul(terms, p.tape().constant(BasicTensor<T>::from(weights, {p.rows()})));
  }
  return scale(sum(terms), counted > 0 ? 1 / counted : T{0});
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T)                                                            \
  template BasicVar<T> binary_cross_entropy(const BasicVar<T>&, const BasicTensor<T>&); \
  template BasicVar<T> cross_entropy(const BasicVar<T>&, std::span<const std::int64_t>, \
                                     std::span<const T>);                               \
  template BasicVar<T> kl_divergence(const BasicVar<T>&, const BasicVar<T>&, const std::vector<T>&);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1
