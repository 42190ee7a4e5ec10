#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/prompts/unit_rows.hpp"
#include "graft/adapters/prompts/vpt.hpp"

namespace graft::inline v0_1 {

/// Configuration of visual prompts with semantic proxies.
struct SemanticProxyConfig {
  Index num_tokens = 10;
  Index num_classes = 0;
  double momentum = 0.9;  ///< of the proxies
  double alpha = 32;      ///< of the loss: how hard
  double margin = 0.1;

  static constexpr const char* kPeftType = "SEMANTIC_PROXY_PROMPTS";

  template <class Visitor>
  void fields(Visitor& v) {
    v("num_tokens", num_tokens);
    v("num_classes", num_classes);
    v("momentum", momentum);
    v("alpha", alpha);
    v("margin", margin);
  }
  /// @throws ValueError for a size below 1 or a momentum out of its range.
  void validate() const {
    if (num_tokens < 1 || num_classes < 1)
      throw ValueError(concat("semantic proxies: num_tokens ", num_tokens, ", num_classes ",
                              num_classes, ", expected at least 1"));
    if (!(momentum >= 0 && momentum <= 1))
      throw ValueError(concat("semantic proxies: momentum ", momentum, ", expected 0 … 1"));
  }
};

/// Proxy-Anchor loss of embeddings z [rows, d] with labels against proxies p [classes, d]:
/// 1/|C⁺| Σ_{c ∈ C⁺} log(1 + Σ_{x of c} exp(−α (cos(x, p_c) − δ)))
/// + 1/|C| Σ_c log(1 + Σ_{x of others} exp(α (cos(x, p_c) + δ))), C⁺: the classes that occur.
/// Source: Kim et al. 2020, arXiv:2003.13911, equation 4. @throws ShapeError, ValueError
template <std::floating_point T>
BasicVar<T> proxy_anchor_loss(const BasicVar<T>& z, std::span<const std::int64_t> labels,
                              const BasicTensor<T>& proxies, double alpha = 32,
                              double margin = 0.1) {
  const Index rows = z.rows(), classes = proxies.rows();
  if (std::ssize(labels) != rows || proxies.cols() != z.cols() || rows == 0)
    throw ShapeError(concat("proxy anchor loss: ", labels.size(), " labels for embeddings ",
                            z.shape().text(), ", proxies ", proxies.shape().text()));
  auto& tape = z.tape();
  const T a = static_cast<T>(alpha), hidden = static_cast<T>(-1e30);
  const auto p = unit_rows(tape.constant(proxies));
  // [classes, rows]
  const auto cosine = matmul(p, unit_rows(z), Transpose::no, Transpose::yes);
  auto others = BasicTensor<T>::zeros({classes, rows});
  auto own = BasicTensor<T>::full({classes, rows}, hidden);
  std::vector<Index> seen;
  for (Index i = 0; i < rows; ++i) {
    const auto c = static_cast<Index>(labels[static_cast<std::size_t>(i)]);
    if (c < 0 || c >= classes)
      throw ValueError(concat("proxy anchor loss: label ", c, " of ", classes, " classes"));
    own(c, i) = 0;
    others(c, i) = hidden;
    if (std::find(seen.begin(), seen.end(), c) == seen.end()) seen.push_back(c);
  }
  // log(1 + Σ exp x): one more column of zeros.
  const auto zeros = tape.constant(BasicTensor<T>::zeros({classes, 1}));
  const auto soft = [&](const BasicVar<T>& exponent, const BasicTensor<T>& mask) {
    return log_sum_exp(
        concat_along(1, std::vector<BasicVar<T>>{add(exponent, tape.constant(mask)), zeros}));
  };
  const T delta = static_cast<T>(margin);
  const auto near = soft(scale(add_scalar(cosine, -delta), -a), own);
  const auto far = soft(scale(add_scalar(cosine, delta), a), others);
  return add(scale(sum(near), T{1} / static_cast<T>(seen.size())),
             scale(sum(far), T{1} / static_cast<T>(classes)));
}

/// Prompts of all blocks, and those of each class, which may take the place of the first ones.
template <std::floating_point T>
class SemanticProxies final : public PromptPart<T> {
 public:
  SemanticProxies(const SemanticProxyConfig& config,
                  std::shared_ptr<detail::BlockPrompts<T>> prompts, const std::string& root,
                  Index width, InitContext<T>& context)
      : config_(config), prompts_(std::move(prompts)), root_(root) {
    const Shape shape{config.num_classes, config.num_tokens, width};
    classes_ = BasicParameter<T>(context.loading
                                     ? BasicTensor<T>::zeros(shape)
                                     : detail::normal_tensor<T>(context.generator, shape, 0.02));
    proxies_ = BasicParameter<T>(
        context.loading
            ? BasicTensor<T>::zeros({config.num_classes, width})
            : detail::normal_tensor<T>(context.generator, {config.num_classes, width}, 1),
        false);
  }
  Index virtual_tokens() const override { return config_.num_tokens; }
  BasicVar<T> prompt(BasicTape<T>& tape, Index batch, const ForwardContext&) const override {
    if (of_.empty()) return prompts_->rows(tape, 0, batch);
    if (std::ssize(of_) != batch)
      throw ShapeError(concat("semantic proxies: ", of_.size(), " classes for a batch of ", batch));
    return gather_rows(tape.parameter(classes_), of_);
  }
  std::vector<AdapterTensor<T>> tensors() const override {
    auto list = prompts_->tensors();
    list.push_back(detail::whole_name<T>(root_ + ".class_prompt_embeddings", classes_));
    list.push_back(detail::whole_name<T>(root_ + ".proxies", proxies_));
    return list;
  }
  const BasicTensor<T>& proxies() const { return proxies_.value(); }

  /// `run()` with the prompts of a class for each row of the batch in place of the first ones: the
  /// semantic proxies s_c.
  template <class Run>
  auto with_classes(std::span<const std::int64_t> labels, Run&& run) {
    struct Restore {
      std::vector<Index>& of;
      ~Restore() { of.clear(); }
    } restore{of_};
    for (const auto c : labels) {
      if (c < 0 || c >= config_.num_classes)
        throw ValueError(
            concat("semantic proxies: label ", c, " of ", config_.num_classes, " classes"));
      of_.push_back(static_cast<Index>(c));
    }
    return run();
  }
  BasicVar<T> loss(const BasicVar<T>& z, std::span<const std::int64_t> labels) const {
    return proxy_anchor_loss(z, labels, proxies(), config_.alpha, config_.margin);
  }
  /// p_c ← μ p_c + (1 − μ) s_c, row by row. s: [rows, d]
  void accumulate(const BasicTensor<T>& s, std::span<const std::int64_t> labels) {
    const Index d = proxies().cols();
    if (s.cols() != d || s.rows() != std::ssize(labels))
      throw ShapeError(concat("semantic proxies: ", s.shape().text(), " for ", labels.size(),
                              " labels, proxies ", proxies().shape().text()));
    auto next = proxies().clone();
    const T keep = static_cast<T>(config_.momentum);
    for (Index i = 0; i < s.rows(); ++i) {
      const auto c = static_cast<Index>(labels[static_cast<std::size_t>(i)]);
      if (c < 0 || c >= config_.num_classes)
        throw ValueError(
            concat("semantic proxies: label ", c, " of ", config_.num_classes, " classes"));
      for (Index j = 0; j < d; ++j) next(c, j) = keep * next(c, j) + (1 - keep) * s(i, j);
    }
    proxies_.assign(std::move(next));
  }

 private:
  SemanticProxyConfig config_;
  std::shared_ptr<detail::BlockPrompts<T>> prompts_;
  std::string root_;
  BasicParameter<T> classes_, proxies_;
  std::vector<Index> of_;  ///< class of each row of the pass that runs; empty: no classes
};

/// Visual prompts with semantic proxies, for metric learning: embeddings z = Enc([class token; P;
/// patches]) with deep prompts, s_c the same with prompts P_c [tokens, d] of a class in place of
/// the first ones, and proxies p_c ← μ p_c + (1 − μ) s_c for the Proxy-Anchor loss.
///
/// Trained: layers · tokens · d + classes · tokens · d; the proxies [classes, d] are a buffer. One
/// step: z of the batch, `SemanticProxies::loss`, s by `with_classes` without gradients,
/// `accumulate`. The loss uses the proxies as they were before the batch, so P_c needs an objective
/// of its own, e.g. the same loss with s in place of z. The loss normalises z and the proxies, s is
/// accumulated as it is. Not the identity at the start; does not merge.
/// Source: Ren et al. 2024, arXiv:2402.02340, with an exponential mean in place of a GRU. Tensors:
/// vit.encoder.layer.N.prompt_embeddings, vit.{class_prompt_embeddings, proxies}.
template <std::floating_point T>
struct SemanticProxyMethod {
  using Scalar = T;
  using Config = SemanticProxyConfig;
  static Config example() {
    Config config;
    config.num_classes = 3;
    return config;
  }
  static MethodInfo info() {
    return {.peft_type = "SEMANTIC_PROXY_PROMPTS",
            .name = "Semantic proxies",
            .family = "prompts",
            .paper = "arXiv:2402.02340",
            .sites = "prompt, blocks",
            .parameters = "once layers num_tokens d + num_classes num_tokens d",
            .mergeable = false,
            .in_peft = false,
            .identity_at_init = false,
            .adds_up = false};
  }
  template <class Set>
  static void finish(const Config& config, Set& set, BasicSiteTable<T>& table,
                     InitContext<T>& context) {
    auto names = detail::block_paths(table);
    for (auto& name : names) name += ".prompt_embeddings";
    auto prompts = std::make_shared<detail::BlockPrompts<T>>(
        VptConfig{.num_tokens = config.num_tokens, .deep = true}, names, table, context);
    detail::place_prompt<T>(
        set, table,
        std::make_shared<SemanticProxies<T>>(config, prompts, detail::root_module(names.front()),
                                             table.info.hidden_size, context));
    detail::place_stack<T>(set, table,
                           std::make_shared<detail::BlockPromptStack<T>>(prompts, config.num_tokens,
                                                                         table.prompt->in_front()));
  }
};

}  // namespace graft::inline v0_1
