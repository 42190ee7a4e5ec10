#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/layers/forward_context.hpp"
#include "graft/layers/sites.hpp"
#include "graft/models/batch.hpp"

namespace graft::models {

/// A frozen network with named adapter sites. Not movable: sites keep their addresses.
template <std::floating_point T>
class BasicModel {
 public:
  using Scalar = T;

  BasicModel() = default;
  BasicModel(const BasicModel&) = delete;
  BasicModel& operator=(const BasicModel&) = delete;
  virtual ~BasicModel() = default;

  BasicSiteTable<T>& sites() { return sites_; }
  const BasicSiteTable<T>& sites() const { return sites_; }
  const ModelInfo& info() const { return sites_.info; }

  /// The name in files of a module that adapters know by `path`.
  virtual std::string file_name(const std::string& path) const { return path; }

  /// What the head gives: a causal model [batch, tokens (virtual ones first), vocabulary], a
  /// classifier [batch, classes] …
  virtual BasicVar<T> logits(BasicTape<T>& tape, const BasicBatch<T>& batch) const = 0;
  /// Loss against the labels of the batch, a scalar.
  virtual BasicVar<T> loss(BasicTape<T>& tape, const BasicBatch<T>& batch) const = 0;

 protected:
  BasicSiteTable<T> sites_;
};

/// Puts what a batch is about on a tape, for the adapters that ask.
template <std::floating_point T>
std::shared_ptr<const ForwardContext> set_forward_context(BasicTape<T>& tape,
                                                          const BasicBatch<T>& batch,
                                                          std::vector<std::int32_t> past_ids = {}) {
  auto context = std::make_shared<ForwardContext>();
  context->batch = batch.batch;
  context->seq_len = batch.seq_len;
  context->ids = batch.ids;
  context->past_ids = std::move(past_ids);
  context->token_mask = batch.mask;
  context->task_ids = batch.task_ids;
  context->modality = batch.modality;
  context->row_adapters = batch.row_adapters;
  tape.set_context(context);
  return context;
}

/// Which keys attention may see, [batch, extra + seq_len]: the real tokens of a batch, and `extra`
/// virtual ones before each row. Null if all are real.
template <std::floating_point T>
std::shared_ptr<const std::vector<unsigned char>> key_mask(const BasicBatch<T>& batch,
                                                           Index extra) {
  if (std::find(batch.mask.begin(), batch.mask.end(), 0) == batch.mask.end()) return nullptr;
  const Index tokens = extra + batch.seq_len;
  auto mask = std::make_shared<std::vector<unsigned char>>(
      static_cast<std::size_t>(batch.batch * tokens), static_cast<unsigned char>(1));
  for (Index b = 0; b < batch.batch; ++b)
    std::copy_n(batch.mask.begin() + b * batch.seq_len, batch.seq_len,
                mask->begin() + b * tokens + extra);
  return mask;
}

using Model = BasicModel<float>;

}  // namespace graft::models
