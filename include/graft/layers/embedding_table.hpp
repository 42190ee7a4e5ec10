#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>

#include "graft/quant/format.hpp"
#include "graft/tensor/tensor.hpp"

namespace graft::inline v0_1 {

/// A frozen table of `rows` vectors of `dim` elements, dense or in a quantised format (then rows
/// are decoded when looked up).
template <std::floating_point T>
class BasicEmbeddingTable {
 public:
  BasicEmbeddingTable() = default;
  /// table: [rows, dim], shared.
  explicit BasicEmbeddingTable(BasicTensor<T> table)
      : dense_(std::move(table)), rows_(dense_.dim(0)), dim_(dense_.dim(1)) {}
  /// Quantised rows, shared with whoever holds them.
  BasicEmbeddingTable(quant::Format format, const void* blocks, Index rows, Index dim,
                      std::shared_ptr<const void> keep_alive = nullptr)
    requires std::is_same_v<T, float>
      : format_(format),
        blocks_(static_cast<const std::byte*>(blocks)),
        rows_(rows),
        dim_(dim),
        row_bytes_(quant::row_bytes(format, dim)),
        keep_alive_(std::move(keep_alive)) {}

  Index rows() const { return rows_; }
  Index dim() const { return dim_; }
  explicit operator bool() const { return rows_ > 0; }
  /// Quantised rows as they are kept; null if the table is dense.
  const void* blocks() const { return blocks_; }
  quant::Format format() const { return format_; }
  const std::shared_ptr<const void>& keep_alive() const { return keep_alive_; }

  /// Rows of the ids, [ids, dim]. @throws ValueError for an id outside of the table.
  BasicTensor<T> lookup(std::span<const std::int32_t> ids) const;
  /// The whole table, [rows, dim]: shared if dense, else decoded.
  BasicTensor<T> dense() const {
    if (dense_) return dense_;
    auto y = BasicTensor<T>::empty({rows_, dim_});
    for (Index i = 0; i < rows_; ++i) copy_row(i, y.data() + i * dim_);
    return y;
  }

 private:
  void copy_row(Index row, T* out) const;

  BasicTensor<T> dense_;
  quant::Format format_ = quant::Format::f32;
  const std::byte* blocks_ = nullptr;
  Index rows_ = 0;
  Index dim_ = 0;
  Index row_bytes_ = 0;
  std::shared_ptr<const void> keep_alive_;
};

using EmbeddingTable = BasicEmbeddingTable<float>;

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/layers/impl/embedding_table_impl.hpp"
#endif
