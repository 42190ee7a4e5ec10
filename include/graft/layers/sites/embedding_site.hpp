#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

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
  BasicVar<T> operator()(BasicTape<T>& tape, std::span<const std::int32_t> ids) const {
    const auto* context = tape.template context<ForwardContext>();
    if (this->runs_by_row(context)) return by_row(tape, ids, *context);
    if (this->runs_one(context)) {
      const auto chain = this->chain_of(*context->only);
      return BasicEmbeddingView<T>(table_, chain)(tape, ids);
    }
    return BasicEmbeddingView<T>(table_, this->chain())(tape, ids);
  }
  /// Factor that the model multiplies the rows with afterwards (Gemma), 1 for others; LoRA's term
  /// takes part in it.
  T embed_scale = 1;
  Index padding_index = -1;  ///< row that stands for padding; -1: there is none

 private:
  BasicVar<T> by_row(BasicTape<T>& tape, std::span<const std::int32_t> ids,
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

  BasicEmbeddingTable<T> table_;
};

using EmbeddingSite = BasicEmbeddingSite<float>;

}  // namespace graft::inline v0_1
