#include "graft/adapters/bottleneck/pha.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"
#include "graft/adapters/bottleneck/polyhistor.hpp"

namespace {

using graft::Index;
using Tensor = graft::BasicTensor<double>;

constexpr Index kWidth = 6;

graft::HiddenSiteInfo<double> site() {
  graft::HiddenSiteInfo<double> info;
  info.path = "layer.1.output";
  info.width = kWidth;
  info.layer = 1;
  info.model.layers = 2;
  return info;
}
graft::PHAConfig pha_config() {
  return {.adapter_dim = 3,
          .embedding_dim = 4,
          .hypernetwork_bottleneck = 5,
          .retriever_hidden = 7,
          .num_tasks = 3,
          .temperature = 0.5};
}
void say_tasks(graft::BasicTape<double>& tape, std::vector<std::int64_t> tasks,
               std::vector<unsigned char> mask = {}) {
  auto context = std::make_shared<graft::ForwardContext>();
  context->batch = std::ssize(tasks);
  context->seq_len = 2;
  context->task_ids = std::move(tasks);
  context->token_mask = std::move(mask);
  tape.set_context(context);
}

}  // namespace

TEST_CASE("each row of a batch runs the plain adapter that PHA exports for its task") {
  graft::StandaloneInit<double> init(3);
  const graft::BasicPHA<double> adapter(pha_config(), site(), init.context());
  checks::randomize(adapter);
  const std::vector<std::int64_t> tasks{2, 0, 2};
  const auto x = checks::random_tensor<double>({6, kWidth}, 4);
  graft::BasicTape<double> tape({.gradients = false});
  say_tasks(tape, tasks);
  const auto r = tape.constant(x);
  const auto y = adapter.apply(r, r, r).value();
  for (Index b = 0; b < 3; ++b) {
    const auto e = adapter.exported(tasks[static_cast<std::size_t>(b)]);
    const auto rows = slice(r, 0, 2 * b, 2);
    const auto inner =
        relu(add(matmul(rows, tape.constant(e[0]), graft::Transpose::no, graft::Transpose::yes),
                 tape.constant(e[1])));
    const auto expected = add(
        rows, add(matmul(inner, tape.constant(e[2]), graft::Transpose::no, graft::Transpose::yes),
                  tape.constant(e[3])));
    CHECK(checks::relative_error(y.slice_rows(2 * b, 2), expected.value()) < 1e-13);
  }
  say_tasks(tape, {0, 1, 3});
  CHECK_THROWS_WITH(adapter.apply(r, r, r), Catch::Contains("task 3"));
}

TEST_CASE("PHA's adapter and both of its losses differentiate") {
  for (const bool include : {false, true}) {
    auto c = pha_config();
    c.include_positive = include;
    graft::StandaloneInit<double> init(3);
    const graft::BasicPHA<double> adapter(c, site(), init.context());
    const graft::PHARetriever<double> retriever(c, kWidth, 2, nullptr, init.context());
    std::vector<graft::BasicParameter<double>> parameters{
        graft::BasicParameter<double>(checks::random_tensor<double>({8, kWidth}, 4))};
    for (auto list : {adapter.tensors(), retriever.tensors()})
      for (const auto& t : list)
        if (std::find(parameters.begin(), parameters.end(), t.parameter) == parameters.end()) {
          t.parameter.assign(checks::random_tensor<double>(
              t.parameter.shape(), static_cast<unsigned>(parameters.size()), 0.4));
          parameters.push_back(t.parameter);
        }
    const auto weights = checks::random_tensor<double>({8, kWidth}, 6);
    const auto check = graft::gradient_check(
        [&](graft::BasicTape<double>& tape) {
          say_tasks(tape, {1, 0, 1, 2}, {1, 1, 0, 1, 1, 0, 1, 1});
          const auto x = tape.parameter(parameters[0]);
          const auto y = adapter.apply(x, x, x);
          retriever.begin(tape);
          retriever.leave(1, y);
          return add(sum(mul(y, tape.constant(weights))), retriever.auxiliary_loss(tape));
        },
        parameters);
    CHECK(check.relative_error < 1e-6);
  }
}

TEST_CASE("PHA's losses have their values, and rows alone in their task count as zero") {
  const auto c = pha_config();
  graft::StandaloneInit<double> init(3);
  graft::PHARetriever<double> retriever(c, kWidth, 2, nullptr, init.context());
  graft::BasicTape<double> tape;
  say_tasks(tape, {1, 0, 1}, {1, 1, 0, 1, 1, 1});
  const auto x = tape.constant(checks::random_tensor<double>({6, kWidth}, 4));
  retriever.begin(tape);
  retriever.leave(0, x);
  CHECK_FALSE(retriever.auxiliary_loss(tape));
  retriever.leave(1, x);
  const auto unit = [](Tensor t) {
    t = t.clone();
    for (Index i = 0; i < t.rows(); ++i) {
      double n = 0;
      for (Index j = 0; j < t.cols(); ++j) n += t(i, j) * t(i, j);
      for (Index j = 0; j < t.cols(); ++j) t(i, j) /= std::sqrt(n);
    }
    return t;
  };
  const auto q = unit(retriever.query().value());
  const auto similarity = [](const Tensor& a, Index i, const Tensor& b, Index j) {
    double s = 0;
    for (Index k = 0; k < a.cols(); ++k) s += a(i, k) * b(j, k);
    return s / 0.5;
  };
  const auto e = [&](Index i, Index j) { return std::exp(similarity(q, i, q, j)); };
  const double instance = -(similarity(q, 0, q, 2) - std::log(e(0, 1) + e(0, 2)) +
                            similarity(q, 2, q, 0) - std::log(e(2, 0) + e(2, 1))) /
                          3;
  CHECK(retriever.instance_loss(tape).item() == Approx(instance));
  Tensor k;
  for (const auto& t : retriever.tensors())
    if (t.name.ends_with("prototypes")) k = unit(t.parameter.value());
  double prototype = 0;
  const Index tasks[] = {1, 0, 1};
  for (Index i = 0; i < 3; ++i) {
    double others = 0;
    for (Index t = 0; t < 3; ++t)
      if (t != tasks[i]) others += std::exp(similarity(q, i, k, t));
    prototype -= (similarity(q, i, k, tasks[i]) - std::log(others)) / 3;
  }
  CHECK(retriever.prototype_loss(tape).item() == Approx(prototype));
  CHECK(retriever.auxiliary_loss(tape).item() == Approx(0.1 * instance + 0.1 * prototype));
  CHECK_FALSE(retriever.auxiliary_loss(tape));

  auto scaled = k.clone();
  for (double& v : scaled) v *= 3;
  CHECK(retriever.nearest_prototype(scaled.slice_rows(2, 1)) == 2);
  retriever.copy_prototype(2, 0);
  CHECK(retriever.nearest_prototype(scaled.slice_rows(2, 1)) == 0);
}

TEST_CASE("PHA asks for the tasks of the rows and for sizes that make sense") {
  graft::StandaloneInit<double> init(3);
  const graft::BasicPHA<double> adapter(pha_config(), site(), init.context());
  graft::BasicTape<double> tape;
  const auto x = tape.constant(Tensor::zeros({2, kWidth}));
  CHECK_THROWS_WITH(adapter.apply(x, x, x), Catch::Contains("task_ids"));
  CHECK_THROWS_WITH(graft::PHAConfig{.temperature = 0}.validate(), Catch::Contains("temperature"));
  CHECK_THROWS_WITH(graft::PHAConfig{.num_tasks = 0}.validate(), Catch::Contains("below 1"));
}
