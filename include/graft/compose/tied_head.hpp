#pragma once

#include <algorithm>

#include "graft/layers/dense_linear.hpp"
#include "graft/layers/quantized_linear.hpp"
#include "graft/layers/sites.hpp"

namespace graft::inline v0_1 {

/// True if a linear site is an output layer of the model.
template <std::floating_point T>
bool is_output_layer(const BasicLinearSite<T>& site, const BasicSiteTable<T>& table) {
  const auto& heads = table.info.output_layers;
  return std::find(heads.begin(), heads.end(), site.path()) != heads.end();
}

/// True if an embedding site other than the first looks up rows of the same table (the embeddings
/// of T5's stacks).
template <std::floating_point T>
bool is_tied_embedding(const BasicEmbeddingSite<T>& site, const BasicSiteTable<T>& table) {
  const auto* first = table.embedding.empty() ? nullptr : table.embedding.front();
  if (first == nullptr || first == &site) return false;
  if (first->table().blocks() != nullptr) return first->table().blocks() == site.table().blocks();
  return site.table().blocks() == nullptr &&
         first->table().dense().data() == site.table().dense().data();
}

/// True if a linear site is an output layer that runs on the rows of the model's embedding table.
template <std::floating_point T>
bool is_tied_head(const BasicLinearSite<T>& site, const BasicSiteTable<T>& table) {
  if (table.embedding.empty() || !is_output_layer(site, table)) return false;
  const auto& embedding = table.embedding.front()->table();
  if (embedding.blocks() != nullptr) {
    const auto* head = site.base().template as<QuantizedLinear>();
    return head != nullptr && head->blocks() == embedding.blocks();
  }
  const auto* head = site.base().template as<BasicDenseLinear<T>>();
  return head != nullptr && head->dense_weight().data() == embedding.dense().data();
}

}  // namespace graft::inline v0_1
