#pragma once

#include "graft/layers/window_cache.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
std::pair<BasicVar<T>, BasicVar<T>> BasicWindowCache<T>::extend(Index layer, const BasicVar<T>& k,
                                                                const BasicVar<T>& v) {
  if (windows_.empty()) begin_window();
  const auto [all_k, all_v] = this->append(layer, k.value(), v.value());
  auto& sums = layers_[layer];
  return {joined(all_k, k, sums.first), joined(all_v, v, sums.second)};
}

template <std::floating_point T>
BasicVar<T> BasicWindowCache<T>::joined(const BasicTensor<T>& all, const BasicVar<T>& own,
                                        std::shared_ptr<Sum>& sum) {
  if (!sum) sum = std::make_shared<Sum>();
  const Index first = sum->rows, count = own.rows();
  sum->rows += count;
  sum->wanted = sum->wanted || own.requires_grad();
  windows_.back().push_back({own, sum, first});
  return own.tape().record(
      all, sum->wanted, [sum, first, count, gx = own.grad_ref()](const BasicTensor<T>& dy) {
        if (first > 0) {
          if (!sum->gradient) sum->gradient = BasicTensor<T>::zeros({sum->rows, dy.cols()});
          kernels::add(sum->gradient.data(), dy.data(), sum->gradient.data(), first * dy.cols());
        }
        gx.add(dy.slice_rows(first, count));
      });
}

template <std::floating_point T>
void BasicWindowedSequence<T>::backward(const std::vector<BasicTensor<T>>& gradients) {
  if (gradients.size() != windows_.size())
    throw ValueError(concat("windowed backward pass: ", gradients.size(), " gradients for ",
                            windows_.size(), " windows"));
  for (std::size_t w = windows_.size(); w-- > 0;) {
    const auto& [tape, output] = windows_[w];
    cache_.seed(static_cast<Index>(w));
    if (output.requires_grad())
      tape->backward(output, gradients[w] ? gradients[w] : BasicTensor<T>::zeros(output.shape()));
  }
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
template class BasicWindowCache<float>;
template class BasicWindowCache<double>;
template class BasicWindowedSequence<float>;
template class BasicWindowedSequence<double>;
#endif

}  // namespace graft::inline v0_1
