#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "graft/autograd/tape.hpp"
#include "graft/base/order.hpp"
#include "graft/compose/class_statistics.hpp"

/// SFPrompt: a model in three parts, tail ∘ body ∘ head. The client has the head (embedding and
/// first blocks, frozen) with a trained prompt and the tail (last blocks and classifier, trained);
/// the server has the frozen body. A round of a client: train on tail(head) without the body
/// (an ordinary step), keep the hardest samples (`el2n_scores`, `hardest_samples`), train on the
/// whole with the server (`split_step`), average prompt and tail (`federated_average`). Source: Cao
/// et al. 2024, arXiv:2407.17533.
namespace graft::inline v0_1 {

/// ‖softmax(o) − onehot(y)‖₂ of each row of logits (Paul et al. 2021, arXiv:2107.07075).
/// @throws ShapeError, ValueError for labels that are no classes
template <std::floating_point T>
std::vector<double> el2n_scores(const BasicTensor<T>& logits,
                                std::span<const std::int64_t> labels) {
  if (std::ssize(labels) != logits.rows())
    throw ShapeError(
        concat("el2n_scores: ", labels.size(), " labels for ", logits.rows(), " rows"));
  const auto p = class_probabilities(logits);
  std::vector<double> scores;
  for (Index r = 0; r < p.rows(); ++r) {
    const auto label = labels[static_cast<std::size_t>(r)];
    if (label < 0 || label >= p.cols())
      throw ValueError(concat("el2n_scores: label ", label, " of ", p.cols(), " classes"));
    double square = 0;
    for (Index c = 0; c < p.cols(); ++c) {
      const double off = static_cast<double>(p(r, c)) - (c == label ? 1 : 0);
      square += off * off;
    }
    scores.push_back(std::sqrt(square));
  }
  return scores;
}

/// Numbers of the ⌈(1 − γ) n⌉ samples of largest score in their order; of equal ones the first are
/// kept. @throws ValueError unless 0 ≤ γ ≤ 1
inline std::vector<Index> hardest_samples(std::span<const double> scores, double gamma = 0.5) {
  if (!(gamma >= 0) || gamma > 1) throw ValueError(concat("hardest_samples: gamma ", gamma));
  std::vector<Index> order = largest_first(scores);
  order.resize(
      static_cast<std::size_t>(std::ceil((1 - gamma) * static_cast<double>(scores.size()))));
  std::sort(order.begin(), order.end());
  return order;
}

/// The server's half of a step: runs the body on what a client sends and returns what the client
/// needs; it learns nothing. `body(h)` maps a value of the tape.
template <std::floating_point T>
class SplitServer {
 public:
  explicit SplitServer(std::function<BasicVar<T>(const BasicVar<T>&)> body)
      : body_(std::move(body)) {}
  /// Output of the body for smashed activations.
  BasicTensor<T> forward(const BasicTensor<T>& smashed) {
    tape_.clear();
    input_ = tape_.leaf(smashed);
    output_ = body_(input_);
    return output_.value();
  }
  /// Gradient of the body's input for that of its output, of the last forward pass.
  /// @throws ValueError without one
  BasicTensor<T> backward(const BasicTensor<T>& gradient) {
    if (!output_) throw ValueError("SplitServer: a backward pass without a forward pass");
    tape_.backward(std::exchange(output_, {}), gradient);
    return input_.grad();
  }

 private:
  std::function<BasicVar<T>(const BasicVar<T>&)> body_;
  BasicTape<T> tape_;
  BasicVar<T> input_, output_;
};

/// What a step with the server found, and how many numbers went each way.
template <std::floating_point T>
struct SplitStep {
  T loss = 0;
  Index sent = 0, received = 0;
};

/// Forward and backward pass of the whole model with the body at a server: gradients gather in the
/// parameters that `head(tape)` and `loss(z)` (the tail and the loss of its output) read, the same
/// as without the split. The client sends activations and the gradient of the body's output, the
/// server sends the output and the gradient of its input; the latter two stay away where the head
/// has nothing to learn.
template <std::floating_point T, class Head, class Loss>
SplitStep<T> split_step(SplitServer<T>& server, Head&& head, Loss&& loss) {
  SplitStep<T> step;
  BasicTape<T> front;
  const BasicVar<T> smashed = head(front);
  BasicTape<T> back;
  const auto z = back.leaf(server.forward(smashed.value()));
  step.sent = smashed.size();
  step.received = z.size();
  const BasicVar<T> value = loss(z);
  step.loss = value.item();
  back.backward(value);
  if (!smashed.requires_grad()) return step;
  const auto dz = z.grad() ? z.grad() : BasicTensor<T>::zeros(z.shape());
  front.backward(smashed, server.backward(dz));
  step.sent += z.size();
  step.received += smashed.size();
  return step;
}

}  // namespace graft::inline v0_1
