#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/prompts/prompt_table.hpp"

namespace graft::inline v0_1 {

/// Virtual tokens that are renewed before blocks: what an adapter puts in their place.
///
/// A pass that has no virtual tokens (one that goes on from a cache) is left alone. A batch whose
/// rows name their adapters may have tokens in front that only fill rows up; they stay.
template <std::floating_point T>
class PromptStack : public AdapterPart<T>, public StackAdapterInterface<T> {
 public:
  /// @param tokens  virtual tokens a row  @param in_front  tokens of the model before them
  PromptStack(Index tokens, Index in_front) : tokens_(tokens), in_front_(in_front) {}

  void begin(BasicTape<T>&) const override {}
  void leave(Index, const BasicVar<T>&) const override {}
  BasicVar<T> enter(Index layer, const BasicVar<T>& x) const override {
    const auto* context = x.tape().template context<ForwardContext>();
    if (context == nullptr) return x;
    const Index total = x.rows() / context->batch, rest = context->seq_len - in_front_;
    const Index first = total - rest - tokens_;
    if (first < in_front_) return x;
    const auto rows = reshape(x, {context->batch, total, x.cols()});
    const auto own = prompts(layer, rows, *context);
    if (!own) return x;
    std::vector<BasicVar<T>> parts{own, slice(rows, 1, first + tokens_, rest)};
    if (first > 0) parts.insert(parts.begin(), slice(rows, 1, 0, first));
    return reshape(concat_along(1, parts), x.shape());
  }

 protected:
  /// What takes the place of the virtual tokens before block `layer`, [batch, tokens, width];
  /// empty: they stay. x: [batch, all tokens, width], the real ones last.
  virtual BasicVar<T> prompts(Index layer, const BasicVar<T>& x,
                              const ForwardContext& context) const = 0;

 private:
  Index tokens_, in_front_;
};

namespace detail {

/// Paths of the blocks of a model, in order.
template <std::floating_point T>
std::vector<std::string> block_paths(const BasicSiteTable<T>& table) {
  std::vector<std::string> paths;
  for (const auto* site : table.hidden)
    if (site->role() == HiddenRole::block) paths.push_back(site->path());
  return paths;
}

/// Module that everything else of a model is below: "vit" for "vit.embeddings".
inline std::string root_module(const std::string& path) { return path.substr(0, path.find('.')); }

/// A tensor with its whole name below "base_model.model.".
template <std::floating_point T>
AdapterTensor<T> whole_name(const std::string& name, BasicParameter<T> parameter) {
  return {.name = "model." + name,
          .parameter = std::move(parameter),
          .index = {},
          .scope = AdapterTensor<T>::Scope::model,
          .file_shape = {}};
}

/// Attaches a part to the place of a model where virtual tokens enter.
/// @throws ValueError if the model has none.
template <std::floating_point T, class Set>
void place_prompt(Set& set, BasicSiteTable<T>& table, std::shared_ptr<PromptPart<T>> part) {
  if (table.prompt == nullptr)
    throw ValueError(concat(set.info().peft_type, ": the model (", table.info.architecture,
                            ") has no place for virtual tokens"));
  table.prompt->adapters().push_back({set.name(), part});
  set.add_part(table.prompt->path(), part);
}
/// The same for what goes along with the blocks.
template <std::floating_point T, class Set, class Stack>
void place_stack(Set& set, BasicSiteTable<T>& table, std::shared_ptr<Stack> stack) {
  if (table.stack == nullptr)
    throw ValueError(concat(set.info().peft_type, ": the blocks of the model (",
                            table.info.architecture, ") are no stack that adapters can enter"));
  table.stack->adapters().push_back({set.name(), stack});
  set.add_part("", stack);
}

/// The same rows for every row of a batch: [tokens, width] -> [batch, tokens, width].
template <std::floating_point T>
BasicVar<T> for_each_row(const BasicVar<T>& rows, Index batch) {
  return broadcast_to(reshape(rows, {1, rows.rows(), rows.cols()}),
                      {batch, rows.rows(), rows.cols()});
}

}  // namespace detail

}  // namespace graft::inline v0_1
