#pragma once

#include <string>
#include <string_view>

#include "graft/adapters/target_match.hpp"

namespace graft::inline v0_1::detail {

/// What a linear layer is in a feed-forward block act(gate) ⊙ up → down, or act(up) → down.
enum class FeedForwardRole { none, gate, up, down };

struct FeedForwardPlace {
  FeedForwardRole role = FeedForwardRole::none;
  std::string block = "";  ///< path of the block, which its layers have in common
  std::string inner = "";  ///< of `down`: path of the module that its input comes from, where files
                           ///< have such a module
};

/// The place of a layer by its name, as the models of the transformers library name them.
inline FeedForwardPlace feed_forward_place(const std::string& path) {
  const auto name = last_part(path);
  const auto before = [&](std::string_view end) {
    return path.size() > end.size() ? path.substr(0, path.size() - end.size() - 1) : std::string();
  };
  const auto is = [&](auto... names) { return ((name == names) || ...); };
  if (is("gate_proj", "wi_0")) return {FeedForwardRole::gate, before(name)};
  if (is("up_proj", "wi_1", "wi", "fc1", "lin1", "c_fc"))
    return {FeedForwardRole::up, before(name)};
  if (is("down_proj", "wo", "fc2", "lin2") || has_suffix(path, "mlp.c_proj"))
    return {FeedForwardRole::down, before(name)};
  if (has_suffix(path, "intermediate.dense"))
    return {FeedForwardRole::up, before("intermediate.dense")};
  if (has_suffix(path, "output.dense") && !has_suffix(path, "attention.output.dense")) {
    const auto block = before("output.dense");
    return {FeedForwardRole::down, block,
            block.empty() ? std::string("intermediate") : block + ".intermediate"};
  }
  return {};
}

}  // namespace graft::inline v0_1::detail
