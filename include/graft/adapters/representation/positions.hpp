#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "graft/adapters/config_value.hpp"
#include "graft/layers/forward_context.hpp"
#include "graft/tensor/tensor.hpp"

namespace graft::inline v0_1 {

/// Which tokens an edit of hidden states changes: all that are no padding, or the first and the
/// last ones of the prompt.
struct EditPositions {
  bool all = false;
  Index first = 5, last = 5;

  /// From a configuration: "all" or {"first": p, "last": s}. @throws ValueError for anything else.
  static EditPositions from(const ConfigValue& value) {
    EditPositions result;
    if (value == ConfigValue("all")) {
      result.all = true;
      return result;
    }
    const auto* map = value.get_if<ConfigValue::Map>();
    if (map == nullptr || !map->contains("first") || !map->contains("last") || map->size() != 2)
      throw ValueError(R"(positions: expected "all" or {"first": …, "last": …})");
    detail::read_config("positions.first", map->at("first"), result.first);
    detail::read_config("positions.last", map->at("last"), result.last);
    if (result.first < 0 || result.last < 0 || result.first + result.last == 0)
      throw ValueError(concat("positions: first ", result.first, ", last ", result.last,
                              ", expected one of them at least 1"));
    return result;
  }
};

/// Numbers of rows, [batch · tokens]. Positions of all tokens are all `prefix`.
struct EditedRows {
  std::vector<Index> prefix, suffix;

  /// Adds those of one row of the batch, whose real tokens are at `places`; the first `prompt` of
  /// them are its prompt. Both ends are clipped to half of it, so that no place occurs twice.
  void add(const EditPositions& positions, const std::vector<Index>& places, Index prompt) {
    const Index length = std::min(prompt, std::ssize(places));
    const auto first = places.begin();
    if (positions.all) {
      prefix.insert(prefix.end(), first, places.end());
      return;
    }
    const Index p = std::min(positions.first, length / 2), s = std::min(positions.last, length / 2);
    prefix.insert(prefix.end(), first, first + p);
    suffix.insert(suffix.end(), first + (length - s), first + length);
  }
};

/// The rows that an edit changes of [batch, tokens] hidden states in a pass.
///
/// Real tokens and prompts are those of the context; without one, a batch of `batch` rows of prompt
/// only. Virtual tokens in front of a row are not edited. Tokens that a cache is continued with are
/// no prompt: only `all`, which a merged weight does as well, edits them. @throws ShapeError for
/// rows that the context does not explain
inline EditedRows edited_rows(const EditPositions& positions, const ForwardContext* context,
                              Index batch, Index tokens) {
  EditedRows rows;
  if (context != nullptr && !context->past_ids.empty() && !positions.all) return rows;
  const bool masked = context != nullptr && !context->token_mask.empty();
  Index own = tokens;
  if (masked)
    own = std::ssize(context->token_mask) / batch;
  else if (context != nullptr && !context->ids.empty())
    own = std::ssize(context->ids) / batch;
  const Index extra = tokens - own;
  if (extra < 0)
    throw ShapeError(concat("edit of hidden states: ", tokens, " a row of the batch, which has ",
                            own, " tokens"));
  const bool given = context != nullptr && !context->prompt_lengths.empty();
  if (given && std::ssize(context->prompt_lengths) != batch)
    throw ShapeError(concat("edit of hidden states: ", context->prompt_lengths.size(),
                            " lengths of prompts for a batch of ", batch));
  std::vector<Index> places;
  for (Index b = 0; b < batch; ++b) {
    places.clear();
    for (Index t = 0; t < own; ++t)
      if (!masked || context->token_mask[static_cast<std::size_t>(b * own + t)] != 0)
        places.push_back(b * tokens + extra + t);
    rows.add(positions, places,
             given ? context->prompt_lengths[static_cast<std::size_t>(b)] : std::ssize(places));
  }
  return rows;
}

}  // namespace graft::inline v0_1
