#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "graft/layers/embedding_table.hpp"
#include "graft/layers/sites/row_groups.hpp"
#include "graft/layers/sites/site_adapters.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
class BasicEmbeddingView;

/// Adapter of an embedding site behind type erasure.
template <std::floating_point T>
class EmbeddingAdapterInterface {
 public:
  virtual ~EmbeddingAdapterInterface() = default;
  virtual BasicVar<T> apply(const BasicEmbeddingView<T>& base, BasicTape<T>& tape,
                            std::span<const std::int32_t> ids) const = 0;
};

/// The table that an adapter of an embedding site wraps, with the adapters below this one.
template <std::floating_point T>
class BasicEmbeddingView {
 public:
  using Scalar = T;
  using Below = std::span<const std::shared_ptr<const EmbeddingAdapterInterface<T>>>;

  BasicEmbeddingView(const BasicEmbeddingTable<T>& table, Below below)
      : table_(&table), below_(below) {}
  Index vocabulary() const { return table_->rows(); }
  Index dim() const { return table_->dim(); }
  /// Rows of the ids: [ids, dim].
  BasicVar<T> operator()(BasicTape<T>& tape, std::span<const std::int32_t> ids) const {
    if (below_.empty()) return tape.constant(table_->lookup(ids));
    return below_.back()->apply(BasicEmbeddingView(*table_, below_.first(below_.size() - 1)), tape,
                                ids);
  }
  const BasicEmbeddingTable<T>& table() const { return *table_; }

 private:
  const BasicEmbeddingTable<T>* table_;
  Below below_;
};

/// An embedding table of a model, with its adapters. Kind `embedding`.
template <std::floating_point T>
class BasicEmbeddingSite : public SiteAdapters<EmbeddingAdapterInterface<T>> {
 public:
  using Scalar = T;

  BasicEmbeddingSite() = default;
  BasicEmbeddingSite(std::string path, BasicEmbeddingTable<T> table)
      : SiteAdapters<EmbeddingAdapterInterface<T>>(std::move(path)), table_(std::move(table)) {}

  const BasicEmbeddingTable<T>& table() const { return table_; }
  void set_table(BasicEmbeddingTable<T> table) { table_ = std::move(table); }
  /// Rows of the ids: [ids, dim]. @throws ValueError for an id outside of the table.
  BasicVar<T> operator()(BasicTape<T>& tape, std::span<const std::int32_t> ids) const;
  /// Factor that the model multiplies the rows with afterwards (Gemma), 1 for others; LoRA's term
  /// takes part in it.
  T embed_scale = 1;
  Index padding_index = -1;  ///< row that stands for padding; -1: there is none

 private:
  BasicVar<T> by_row(BasicTape<T>& tape, std::span<const std::int32_t> ids,
                     const ForwardContext& context) const;

  BasicEmbeddingTable<T> table_;
};

using EmbeddingSite = BasicEmbeddingSite<float>;

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/layers/sites/impl/embedding_site_impl.hpp"
#endif
