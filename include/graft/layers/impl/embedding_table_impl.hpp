#pragma once

#include "graft/layers/embedding_table.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicTensor<T> BasicEmbeddingTable<T>::lookup(std::span<const std::int32_t> ids) const {
  auto y = BasicTensor<T>::empty({static_cast<Index>(ids.size()), dim_});
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= rows_)
      throw ValueError(concat("embedding: id ", ids[i], ", expected [0, ", rows_, ")"));
    copy_row(ids[i], y.data() + static_cast<Index>(i) * dim_);
  }
  return y;
}

template <std::floating_point T>
void BasicEmbeddingTable<T>::copy_row(Index row, T* out) const {
  if (dense_) {
    std::copy_n(dense_.data() + row * dim_, dim_, out);
  } else if constexpr (std::is_same_v<T, float>) {
    quant::row_decoder(format_)(blocks_ + row * row_bytes_, 0, dim_, out);
  }
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
template class BasicEmbeddingTable<float>;
template class BasicEmbeddingTable<double>;
#endif

}  // namespace graft::inline v0_1
