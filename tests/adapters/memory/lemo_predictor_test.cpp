#include "graft/adapters/memory/lemo_predictor.hpp"

#include "adapters/method_checks.hpp"

using graft::Index;

TEST_CASE("The predictor of LeMo learns scores of token pairs by regression") {
  graft::StandaloneInit<double> init(3);
  const graft::BasicLeMoPredictor<double> predictor(7, 4, 3, init.context());
  CHECK(graft::trainable_elements(predictor.tensors()) == 2 * (7 * 4 + 4 * 4 + 4 * 3));
  const auto x = checks::random_tensor<double>({2, 5, 7}, 1);
  const auto target = checks::random_tensor<double>({2, 5, 5}, 2);
  const auto loss = [&](graft::BasicTape<double>& tape) {
    return graft::mse(predictor(tape.constant(x)), tape.constant(target));
  };
  checks::randomize(predictor, 0.5);
  std::vector<graft::BasicParameter<double>> parameters;
  for (const auto& t : predictor.tensors()) parameters.push_back(t.parameter);
  CHECK(graft::gradient_check(loss, parameters, 1e-6).relative_error < 1e-5);
  double first = 0, last = 0;
  for (int step = 0; step < 50; ++step) {
    for (const auto& p : parameters) p.zero_grad();
    graft::BasicTape<double> tape;
    const auto found = loss(tape);
    last = found.item();
    if (step == 0) first = last;
    tape.backward(found);
    for (const auto& p : parameters)
      if (p.grad())
        for (Index i = 0; i < p.size(); ++i) p.value()[i] -= 0.02 * p.grad()[i];
  }
  CHECK(last < first);
  CHECK_THROWS_WITH(graft::BasicLeMoPredictor<double>(7, 0, 3, init.context()),
                    Catch::Contains("sizes 7, 0 and 3"));
}
