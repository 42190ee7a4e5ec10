#include "graft/adapters/low_rank/dora.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicDoRA;
using graft::Index;
using D = BasicDoRA<double>;

namespace {

graft::LoRAConfig config(bool norm_gradient = false, double dropout = 0) {
  return {.rank = 3,
          .alpha = 5,
          .dropout = dropout,
          .use_dora = true,
          .dora_norm_gradient = norm_gradient};
}

/// W + s B A row by row, and its lengths.
graft::BasicTensor<double> updated(const D& m, const graft::BasicDenseLinear<double>& layer) {
  auto w = layer.dense_weight().clone();
  for (Index o = 0; o < w.rows(); ++o)
    for (Index i = 0; i < w.cols(); ++i)
      for (Index k = 0; k < m.rank(); ++k)
        w(o, i) += m.scaling() * m.b().value()(o, k) * m.a().value()(k, i);
  return w;
}

}  // namespace

TEST_CASE("DoRA begins as the identity and merges") {
  CHECK(checks::change_at_init<D>(config()) < 1e-13);
  CHECK(checks::merge_error<graft::DoRA>(config(), 9, 13) < 1e-5);
  CHECK(checks::trained<graft::DoRA>(config(), 9, 13) == 3 * (9 + 13) + 9);
}

TEST_CASE("DoRA scales the rows of the updated weight to the magnitudes") {
  const auto layer = checks::random_layer<double>(9, 13, 1);
  const auto method = checks::make<D>(config(), checks::site_of(layer));
  checks::randomize(method);
  const auto w = updated(method, layer);
  const auto merged = merge_linear(layer, method).dense_weight();
  for (Index o = 0; o < 9; ++o) {
    double norm = 0, found = 0;
    for (Index i = 0; i < 13; ++i) norm += w(o, i) * w(o, i);
    for (Index i = 0; i < 13; ++i) {
      const double want = method.magnitude().value()[o] / std::sqrt(norm) * w(o, i);
      CHECK(merged(o, i) == Approx(want).margin(1e-12));
      found += merged(o, i) * merged(o, i);
    }
    CHECK(std::sqrt(found) == Approx(std::abs(method.magnitude().value()[o])));
  }
}

TEST_CASE("DoRA of a random init starts with the lengths of the updated rows") {
  const auto layer = checks::random_layer<double>(6, 8, 1);
  auto c = config();
  c.init_lora_weights = false;
  const auto method = checks::make<D>(c, checks::site_of(layer));
  const auto w = updated(method, layer);
  for (Index o = 0; o < 6; ++o) {
    double norm = 0;
    for (Index i = 0; i < 8; ++i) norm += w(o, i) * w(o, i);
    CHECK(method.magnitude().value()[o] == Approx(std::sqrt(norm)));
  }
}

TEST_CASE("DoRA's gradient is that of its forward where the norm takes part") {
  CHECK(checks::gradient_error<D>(config(true), 7, 11) < 1e-7);
}

TEST_CASE("DoRA's gradient takes the norm for a constant") {
  const auto layer = checks::random_layer<double>(5, 7, 1);
  const auto method = checks::make<D>(config(), checks::site_of(layer));
  checks::randomize(method);
  const auto x = checks::random_tensor<double>({4, 7}, 3),
             dy = checks::random_tensor<double>({4, 5}, 4);
  graft::BasicTape<double> tape;
  const auto y = method.apply(layer, tape.constant(x));
  tape.backward(y, dy);
  // d/dB of (m / n) ⊙ s (x Aᵀ) Bᵀ with n fixed.
  const auto w = updated(method, layer);
  for (Index o = 0; o < 5; ++o) {
    double norm = 0;
    for (Index i = 0; i < 7; ++i) norm += w(o, i) * w(o, i);
    const double g = method.magnitude().value()[o] / std::sqrt(norm);
    for (Index k = 0; k < 3; ++k) {
      double want = 0;
      for (Index t = 0; t < 4; ++t) {
        double h = 0;
        for (Index i = 0; i < 7; ++i) h += x(t, i) * method.a().value()(k, i);
        want += dy(t, o) * g * method.scaling() * h;
      }
      CHECK(method.b().grad()(o, k) == Approx(want).margin(1e-12));
    }
  }
}

TEST_CASE("DoRA's norms outside of training follow the factors") {
  const auto layer = checks::random_layer<float>(6, 8, 1);
  const auto method = checks::make<graft::DoRA>(config(), checks::site_of(layer));
  const auto x = checks::random_tensor<float>({3, 8}, 2);
  const auto first = checks::output(method, layer, x);
  method.b().value()[2] += 1.0f;  // as an optimiser does: in place
  const auto second = checks::output(method, layer, x);
  CHECK(checks::relative_error(second, first) > 1e-3);
  CHECK(checks::relative_error(second, checks::base_output(merge_linear(layer, method), x)) < 1e-5);
}

TEST_CASE("DoRA with dropout drops the input of both scaled terms and of nothing else") {
  const auto layer = checks::random_layer<double>(6, 8, 1);
  const auto method = checks::make<D>(config(false, 0.4), checks::site_of(layer));
  checks::randomize(method);
  const auto x = checks::random_tensor<double>({5, 8}, 2);
  graft::BasicTape<double> tape({.seed = 5});
  const auto y = method.apply(layer, tape.constant(x)).value();
  graft::BasicTape<double> again({.seed = 5});
  const auto dropped = dropout(again.constant(x), 0.4).value();
  const auto base = checks::base_output(layer, x);
  const auto scaled = checks::output(method, layer, dropped);
  const auto plain = checks::base_output(layer, dropped);
  for (Index i = 0; i < y.size(); ++i)
    CHECK(y[i] == Approx(base[i] + scaled[i] - plain[i]).margin(1e-12));
}

TEST_CASE("DoRA on an embedding merges and differentiates") {
  const auto table = checks::random_tensor<double>({11, 6}, 1);
  graft::EmbeddingSiteInfo<double> site{"emb", 11, 6, -1, [&] { return table; }};
  graft::TorchGenerator generator(1);
  graft::SharedParameters<double> shared;
  graft::InitContext<double> context{generator, shared};
  const graft::BasicDoRAEmbedding<double> method(config(true), site, context);
  const graft::BasicEmbeddingTable<double> frozen(table);
  const graft::BasicEmbeddingView<double> view(frozen, {});
  const std::vector<std::int32_t> ids{3, 0, 10, 3};
  {
    graft::BasicTape<double> tape({.gradients = false});
    const auto y = method.apply(view, tape, ids).value();
    CHECK(checks::relative_error(y, frozen.lookup(ids)) < 1e-13);
  }
  checks::randomize(method);
  std::vector<graft::BasicParameter<double>> parameters;
  for (auto& t : method.tensors()) parameters.push_back(t.parameter);
  const auto weights = checks::random_tensor<double>({4, 6}, 5);
  CHECK(graft::gradient_check(
            [&](graft::BasicTape<double>& tape) {
              return sum(mul(method.apply(view, tape, ids), tape.constant(weights)));
            },
            parameters)
            .relative_error < 1e-7);
}

TEST_CASE("DoRA refuses a bias behind B") {
  auto c = config();
  c.lora_bias = true;
  CHECK_THROWS_WITH(checks::trained<graft::DoRA>(c), Catch::Contains("lora_bias"));
}
