#pragma once

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/prompts/prompt_table.hpp"

namespace graft::inline v0_1 {

/// Configuration of decomposed prompt tuning.
struct DeptConfig {
  Index num_virtual_tokens = 40;
  Index r = 45;
  Index max_length = 256;
  double scaling = 1;  ///< of the update; the original program has α / √r, α = 8

  static constexpr const char* kPeftType = "DEPT";

  template <class Visitor>
  void fields(Visitor& v) {
    v("num_virtual_tokens", num_virtual_tokens);
    v("r", r);
    v("max_length", max_length);
    v("scaling", scaling);
  }
  /// @throws ValueError for a size below 1.
  void validate() const {
    if (num_virtual_tokens < 1 || r < 1 || max_length < 1)
      throw ValueError(concat("DePT: num_virtual_tokens ", num_virtual_tokens, ", r ", r,
                              ", max_length ", max_length, ", expected at least 1"));
  }
};

/// The update of the embedding by position: row t of s A C is added to token t of each row.
template <std::floating_point T>
class BasicDeptUpdate {
 public:
  using Scalar = T;
  BasicDeptUpdate(const DeptConfig& config, Index dim, InitContext<T>& context)
      : length_(config.max_length),
        scaling_(static_cast<T>(config.scaling)),
        a_(detail::kaiming_uniform_tensor<T>(context, {config.max_length, config.r}, config.r)),
        c_(BasicTensor<T>::zeros({config.r, dim})) {}

  BasicVar<T> apply(const BasicEmbeddingView<T>& base, BasicTape<T>& tape,
                    std::span<const std::int32_t> ids) const {
    const auto x = base(tape, ids);
    const auto* context = tape.template context<ForwardContext>();
    const Index batch = context == nullptr ? 1 : context->batch;
    const Index tokens = std::ssize(ids) / batch;
    const Index past =
        context == nullptr ? 0 : std::ssize(context->past_ids) / std::max<Index>(1, batch);
    const Index count = std::min(tokens, length_ - past);
    if (count <= 0) return x;
    const auto rows =
        scale(matmul(slice(tape.parameter(a_), 0, past, count), tape.parameter(c_)), scaling_);
    std::vector<BasicVar<T>> parts{reshape(rows, {1, count, x.cols()})};
    if (count < tokens)
      parts.push_back(tape.constant(BasicTensor<T>::zeros({1, tokens - count, x.cols()})));
    const auto update = parts.size() == 1 ? parts[0] : concat_along(1, parts);
    return reshape(add(reshape(x, {batch, tokens, x.cols()}), update), x.shape());
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(2);
    list[0].name = "dept_A";
    list[0].parameter = a_;
    list[1].name = "dept_C";
    list[1].parameter = c_;
    for (auto& t : list) t.group = "dept";
    return list;
  }
  std::string merge_reason() const { return "DePT depends on the position of a token"; }

 private:
  Index length_;
  T scaling_;
  BasicParameter<T> a_, c_;
};

/// Decomposed prompt tuning: [P; E(x)_t + s (A C)_t], P: [tokens, d] in front, A: [length, r], C:
/// [r, d]; the update counts the tokens of the text, those of P take positions before them.
///
/// Trained: tokens · d + (length + d) r. With the same first P it starts as prompt tuning (C = 0),
/// so not as the identity; does not merge. Tokens beyond `max_length` get no update. A and C are
/// the optimiser's group "dept", for a learning rate of their own. P: rows of the embedding of
/// random tokens. Source: Shi and Lipani 2024, arXiv:2309.05173, equations 3 and 4. Tensors:
/// prompt_embeddings, model.embed_tokens.{dept_A, dept_C}.
template <std::floating_point T>
struct DeptMethod {
  using Scalar = T;
  using Config = DeptConfig;
  static constexpr bool kByRole = true;
  static MethodInfo info() {
    return {.peft_type = "DEPT",
            .name = "Decomposed prompt tuning",
            .family = "prompts",
            .paper = "arXiv:2309.05173",
            .sites = "prompt, embedding",
            .parameters = "; num_virtual_tokens d + (max_length + d) r",
            .mergeable = false,
            .in_peft = false,
            .identity_at_init = false};
  }
  static std::shared_ptr<EmbeddingPart<T>> embedding(const Config& config,
                                                     const EmbeddingSiteInfo<T>& site,
                                                     InitContext<T>& context) {
    if (site.all_embeddings.front().first != site.path) return nullptr;
    return embedding_part(BasicDeptUpdate<T>(config, site.dim, context));
  }
  static std::shared_ptr<PromptPart<T>> prompt(const Config& config, const PromptSiteInfo<T>& site,
                                               InitContext<T>& context) {
    auto rows = BasicTensor<T>::zeros({config.num_virtual_tokens, site.dim});
    if (!context.loading && site.embed) {
      std::vector<std::int32_t> ids;
      for (Index i = 0; i < config.num_virtual_tokens; ++i)
        ids.push_back(static_cast<std::int32_t>(context.generator.random64() %
                                                static_cast<std::uint64_t>(site.model.vocabulary)));
      rows = site.embed(ids);
    }
    auto table = std::make_shared<PromptTable<T>>(std::move(rows));
    table->below_model = true;
    return std::make_shared<TablePrompt<T>>(std::move(table), config.num_virtual_tokens);
  }
};

}  // namespace graft::inline v0_1
