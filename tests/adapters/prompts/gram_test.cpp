#include "graft/adapters/prompts/gram.hpp"

#include "adapters/method_checks.hpp"

using graft::Index;

TEST_CASE("GRAM: outer gradients of both orders") {
  graft::StandaloneInit<double> init(1);
  const graft::BasicGram<double> gram({.num_tokens = 2, .inner_lr = 0.3}, 3, init.context());
  CHECK(graft::trainable_elements(gram.tensors()) == 2 * 3 + 9 + 3);
  checks::randomize(gram, 0.7);
  const auto a = checks::random_tensor<double>({3, 3}, 2),
             b = checks::random_tensor<double>({3, 3}, 3);
  const auto loss_of = [](const graft::BasicTensor<double>& w) {
    return [w](graft::BasicTape<double>& tape, const graft::BasicVar<double>& p) {
      return sum(mul(tanh(matmul(p, tape.constant(w))), p));
    };
  };
  const auto support = loss_of(a), query = loss_of(b);
  const auto value = [&](const graft::BasicTensor<double>& prompt) {
    graft::BasicTape<double> tape({.gradients = false});
    return query(tape, tape.constant(prompt)).item();
  };
  for (const auto& t : gram.tensors()) t.parameter.zero_grad();
  CHECK(gram.outer(support, query, true) == Approx(value(gram.adapted(support))));
  const double h = 1e-5;
  for (const auto& t : gram.tensors()) {
    const auto gradient = t.parameter.grad().clone();
    for (Index i = 0; i < t.parameter.size(); ++i) {
      const double old = t.parameter.value()[i];
      const auto at = [&](double x) {
        auto moved = t.parameter.value().clone();
        moved[i] = x;
        t.parameter.assign(std::move(moved));
        return value(gram.adapted(support));
      };
      const double slope = (at(old + h) - at(old - h)) / (2 * h);
      at(old);
      CHECK(gradient[i] == Approx(slope).epsilon(1e-5).margin(1e-7));
    }
  }
  // First order: the gradient of the query loss at the adapted prompt, as it is.
  for (const auto& t : gram.tensors()) t.parameter.zero_grad();
  gram.outer(support, query);
  const auto at_adapted = gram.gradient(gram.adapted(support), query).first;
  CHECK(checks::relative_error(gram.prompt().grad(), at_adapted) < 1e-12);
}
