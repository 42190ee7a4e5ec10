#pragma once

#include <concepts>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/adapters/adapter.hpp"

namespace graft::inline v0_1 {

/// Shapes of the tensors that a checkpoint holds for one site, by the names of the registry; null:
/// not there.
using CheckpointShapes = std::function<const Shape*(std::string_view name)>;

/// What one adapter has at one site, behind type erasure: its tensors, and what it wants to happen
/// around them.
template <std::floating_point T>
class AdapterPart {
 public:
  virtual ~AdapterPart() = default;
  virtual std::vector<AdapterTensor<T>> tensors() const = 0;
  /// What the file of a finished adapter holds, where that is not what is trained.
  virtual std::vector<AdapterTensor<T>> file_tensors() const { return tensors(); }
  /// Called before a checkpoint is read, so that shapes that depend on it (a reduced rank) can
  /// follow.
  virtual void before_load(const CheckpointShapes&) {}
  /// Called after the tensors were replaced from outside.
  virtual void after_load() {}
  /// A term of the loss; empty: none.
  virtual BasicVar<T> auxiliary_loss(BasicTape<T>&) const { return {}; }
  /// Why the part cannot be merged; empty: it can.
  virtual std::string merge_reason() const { return {}; }
};

template <std::floating_point T>
class LinearPart : public AdapterPart<T>, public LinearAdapterInterface<T> {};
template <std::floating_point T>
class EmbeddingPart : public AdapterPart<T>, public EmbeddingAdapterInterface<T> {
 public:
  /// What an output layer that runs on the rows of the same table does with this adapter; null: it
  /// keeps the frozen rows. Its tensors are those of this part.
  virtual std::shared_ptr<LinearPart<T>> tied_head() const { return nullptr; }
  /// The same where a configuration asks for tied weights (`ensure_weight_tying`).
  virtual std::shared_ptr<LinearPart<T>> head_if_asked() const { return tied_head(); }
  /// The update of a part that adds rows of (A, B)ᵀ and nothing else, A [rank, rows], B [dim,
  /// rank]; empty for others.
  virtual std::optional<LowRankTerm<T>> low_rank_term() const { return std::nullopt; }
};
template <std::floating_point T>
class NormPart : public AdapterPart<T>, public NormAdapterInterface<T> {
 public:
  /// The norm that computes what `norm` with this adapter computes. Default: nothing, it cannot be
  /// merged.
  virtual std::optional<BasicNorm<T>> merged(const BasicNorm<T>&) const { return std::nullopt; }
};
template <std::floating_point T>
class HiddenPart : public AdapterPart<T>, public HiddenAdapterInterface<T> {};
template <std::floating_point T>
class AttentionPart : public AdapterPart<T>, public AttentionAdapterInterface<T> {};
template <std::floating_point T>
class PromptPart : public AdapterPart<T>, public PromptAdapterInterface<T> {};

namespace detail {

/// Forwards the optional members of a method to the virtual ones of a part.
template <class Base, class Method>
class ErasedPart : public Base {
 public:
  using T = typename Method::Scalar;
  explicit ErasedPart(Method method) : method_(std::move(method)) {}
  std::vector<AdapterTensor<T>> tensors() const override { return method_.tensors(); }
  std::vector<AdapterTensor<T>> file_tensors() const override {
    if constexpr (requires { method_.file_tensors(); })
      return method_.file_tensors();
    else
      return method_.tensors();
  }
  void before_load(const CheckpointShapes& shapes) override {
    if constexpr (requires { method_.before_load(shapes); }) method_.before_load(shapes);
  }
  void after_load() override {
    if constexpr (requires { method_.after_load(); }) method_.after_load();
  }
  BasicVar<T> auxiliary_loss(BasicTape<T>& tape) const override {
    if constexpr (requires { method_.auxiliary_loss(tape); })
      return method_.auxiliary_loss(tape);
    else
      return {};
  }
  std::string merge_reason() const override {
    if constexpr (requires { method_.merge_reason(); })
      return method_.merge_reason();
    else
      return {};
  }
  Method& method() { return method_; }
  const Method& method() const { return method_; }

 protected:
  Method method_;
};

template <class Method>
class ErasedLinear final : public ErasedPart<LinearPart<typename Method::Scalar>, Method> {
 public:
  using T = typename Method::Scalar;
  using ErasedPart<LinearPart<T>, Method>::ErasedPart;
  BasicVar<T> apply(const BasicLinearView<T>& base, const BasicVar<T>& x) const override {
    return this->method_.apply(base, x);
  }
  std::optional<LowRankTerm<T>> low_rank_term() const override {
    if constexpr (requires { this->method_.low_rank_term(); })
      return this->method_.low_rank_term();
    else
      return std::nullopt;
  }
  BasicVar<T> bias_factor(BasicTape<T>& tape) const override {
    if constexpr (requires { this->method_.bias_factor(tape); })
      return this->method_.bias_factor(tape);
    else
      return {};
  }
  bool input_in_order() const override {
    if constexpr (requires { Method::kInputInOrder; })
      return Method::kInputInOrder;
    else
      return false;
  }
};
template <class Method>
class ErasedEmbedding final : public ErasedPart<EmbeddingPart<typename Method::Scalar>, Method> {
 public:
  using T = typename Method::Scalar;
  using ErasedPart<EmbeddingPart<T>, Method>::ErasedPart;
  BasicVar<T> apply(const BasicEmbeddingView<T>& base, BasicTape<T>& tape,
                    std::span<const std::int32_t> ids) const override {
    return this->method_.apply(base, tape, ids);
  }
  std::shared_ptr<LinearPart<T>> tied_head() const override {
    if constexpr (requires { this->method_.tied_head(); })
      return this->method_.tied_head();
    else
      return nullptr;
  }
  std::shared_ptr<LinearPart<T>> head_if_asked() const override {
    if constexpr (requires { this->method_.head_if_asked(); })
      return this->method_.head_if_asked();
    else
      return tied_head();
  }
  std::optional<LowRankTerm<T>> low_rank_term() const override {
    if constexpr (requires { this->method_.low_rank_term(); })
      return this->method_.low_rank_term();
    else
      return std::nullopt;
  }
};
template <class Method>
class ErasedNorm final : public ErasedPart<NormPart<typename Method::Scalar>, Method> {
 public:
  using T = typename Method::Scalar;
  using ErasedPart<NormPart<T>, Method>::ErasedPart;
  BasicVar<T> apply(const BasicNorm<T>& norm, const BasicVar<T>& x) const override {
    return this->method_.apply(norm, x);
  }
  std::optional<BasicNorm<T>> merged(const BasicNorm<T>& norm) const override {
    if constexpr (requires { this->method_.merged(norm); })
      return this->method_.merged(norm);
    else
      return std::nullopt;
  }
};
template <class Method>
class ErasedHidden final : public ErasedPart<HiddenPart<typename Method::Scalar>, Method> {
 public:
  using T = typename Method::Scalar;
  using ErasedPart<HiddenPart<T>, Method>::ErasedPart;
  BasicVar<T> apply(const BasicVar<T>& input, const BasicVar<T>& output,
                    const BasicVar<T>& residual) const override {
    return this->method_.apply(input, output, residual);
  }
  bool skips_norm() const override {
    if constexpr (requires { this->method_.skips_norm(); }) return this->method_.skips_norm();
    return false;
  }
};

}  // namespace detail

/// A method for linear sites as a part. The method needs `apply(base, x)` and `tensors()`, and may
/// have `before_load`, `after_load`, `auxiliary_loss`, `merge_reason`, `bias_factor` and
/// `kInputInOrder`.
template <class Method>
std::shared_ptr<LinearPart<typename Method::Scalar>> linear_part(Method method) {
  return std::make_shared<detail::ErasedLinear<Method>>(std::move(method));
}
/// The same for embedding sites: `apply(view, tape, ids)`, and possibly `tied_head` and
/// `head_if_asked`.
template <class Method>
std::shared_ptr<EmbeddingPart<typename Method::Scalar>> embedding_part(Method method) {
  return std::make_shared<detail::ErasedEmbedding<Method>>(std::move(method));
}
/// The same for norm sites: `apply(norm, x)`.
template <class Method>
std::shared_ptr<NormPart<typename Method::Scalar>> norm_part(Method method) {
  return std::make_shared<detail::ErasedNorm<Method>>(std::move(method));
}
/// The same for hidden sites: `apply(input, output, residual)`.
template <class Method>
std::shared_ptr<HiddenPart<typename Method::Scalar>> hidden_part(Method method) {
  return std::make_shared<detail::ErasedHidden<Method>>(std::move(method));
}
/// The method inside a part if it is a `Method`, else null.
template <class Method, class Part>
Method* method_of(Part* part) {
  using T = typename Method::Scalar;
  if (auto* linear = dynamic_cast<detail::ErasedPart<LinearPart<T>, Method>*>(part))
    return &linear->method();
  if (auto* hidden = dynamic_cast<detail::ErasedPart<HiddenPart<T>, Method>*>(part))
    return &hidden->method();
  return nullptr;
}

}  // namespace graft::inline v0_1
