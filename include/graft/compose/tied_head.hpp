#pragma once

#include "graft/layers/dense_linear.hpp"
#include "graft/layers/quantized_linear.hpp"
#include "graft/layers/sites.hpp"

namespace graft::inline v0_1 {

namespace detail {

/// Where the rows of a table lie, dense or in blocks, by which one table is told from another; null
/// for a table without rows.
template <std::floating_point T>
const void* rows_of(const BasicEmbeddingTable<T>& table) {
  if (!table) return nullptr;
  return table.blocks() != nullptr ? table.blocks() : table.dense().data();
}
/// The same of the weight of a linear layer; null for one that could not share it.
template <std::floating_point T>
const void* rows_of(const BasicAnyLinear<T>& layer) {
  if (const auto* quantized = layer.template as<QuantizedLinear>()) return quantized->blocks();
  const auto* dense = layer.template as<BasicDenseLinear<T>>();
  return dense == nullptr ? nullptr : dense->dense_weight().data();
}
/// True if these are the rows of the model's first embedding.
template <std::floating_point T, class Rows>
bool shares_embedding(const Rows& rows, const BasicSiteTable<T>& table) {
  const void* first = rows_of(table.embedding.front()->table());
  return first != nullptr && first == rows_of(rows);
}

}  // namespace detail

/// True if an embedding site other than the first looks up rows of the same table (the embeddings
/// of T5's stacks).
template <std::floating_point T>
bool is_tied_embedding(const BasicEmbeddingSite<T>& site, const BasicSiteTable<T>& table) {
  return !table.embedding.empty() && table.embedding.front() != &site &&
         detail::shares_embedding(site.table(), table);
}

/// True if a linear site is an output layer that runs on the rows of the model's embedding table.
template <std::floating_point T>
bool is_tied_head(const BasicLinearSite<T>& site, const BasicSiteTable<T>& table) {
  return !table.embedding.empty() && table.info.is_output_layer(site.path()) &&
         detail::shares_embedding(site.base(), table);
}

}  // namespace graft::inline v0_1
