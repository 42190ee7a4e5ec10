#include "graft/adapters/representation/reft.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"
#include "graft/adapters/representation/consreft.hpp"
#include "graft/adapters/representation/direft.hpp"
#include "graft/adapters/representation/lobireft.hpp"
#include "graft/adapters/representation/loreft.hpp"
#include "graft/adapters/representation/noreft.hpp"

using graft::BasicTensor;
using graft::ConfigValue;
using graft::Index;

namespace {

ConfigValue first_and_last(Index first, Index last) {
  return ConfigValue::Map{{"first", first}, {"last", last}};
}

template <class M>
typename M::Config all_tokens(Index rank) {
  return {.rank = rank, .positions = "all"};
}

/// Gives the tensors whose names end so the value of others, or zeros.
template <class M>
void set(const M& method, const std::string& ending, const BasicTensor<typename M::Scalar>& value) {
  int found = 0;
  for (auto& t : method.tensors())
    if (t.name.ends_with(ending)) {
      t.parameter.assign(value ? value.clone()
                               : BasicTensor<typename M::Scalar>::zeros(t.parameter.shape()));
      ++found;
    }
  REQUIRE(found > 0);
}
template <class M>
BasicTensor<typename M::Scalar> get(const M& method, const std::string& ending) {
  for (auto& t : method.tensors())
    if (t.name.ends_with(ending)) return t.parameter.value();
  FAIL("no tensor " << ending);
  return {};
}

/// Merged equals unmerged, gradients agree with differences, the count is `count` for r = 3, d
/// = 10.
template <template <class> class M>
void check_method(typename M<float>::Config config, Index count) {
  config.rank = 3;
  config.positions = "all";
  CHECK(checks::trained<M<float>>(config) == count);
  CHECK(checks::gradient_error<M<double>>(config) < 1e-8);
  CHECK(checks::merge_error<M<float>>(config) < 1e-5);
  CHECK(checks::merge_error<M<float>>(config, 7, 9, false) < 1e-5);
  config.positions = first_and_last(2, 1);
  CHECK(checks::gradient_error<M<double>>(config) < 1e-8);
  CHECK_THROWS_WITH(checks::merge_error<M<float>>(config), Catch::Contains("position"));
  config.tied = false;
  CHECK(checks::trained<M<float>>(config) == 2 * count);
  CHECK(checks::gradient_error<M<double>>(config) < 1e-8);
}

}  // namespace

TEST_CASE("every ReFT method counts, differentiates and merges as it says") {
  check_method<graft::BasicLoReft>({}, 2 * 3 * 10 + 3);
  check_method<graft::BasicDiReft>({}, 2 * 3 * 10 + 3);
  check_method<graft::BasicDiReft>({.orthonormal = true}, 2 * 3 * 10 + 3);
  check_method<graft::BasicNoReft>({}, 2 * 3 * 10 + 3);
  check_method<graft::BasicConsReft>({}, 3 * 10 + 3);
  check_method<graft::BasicLobiReft>({}, 3 * 10 + 3);
  check_method<graft::BasicLoReft>({.parametrisation = "householder"}, 2 * 3 * 10 + 3);
  check_method<graft::BasicDiReft>({.orthonormal = true, .parametrisation = "householder"},
                                   2 * 3 * 10 + 3);
}

TEST_CASE("an activation bends a ReFT edit, which then does not merge") {
  for (const char* activation : {"relu", "tanh", "gelu"}) {
    graft::LoReftConfig config{.rank = 3, .positions = "all", .activation = activation};
    CHECK(checks::gradient_error<graft::BasicLoReft<double>>(config) < 1e-6);
    CHECK_THROWS_WITH(checks::merge_error<graft::LoReft>(config), Catch::Contains("activation"));
  }
  CHECK(checks::gradient_error<graft::BasicDiReft<double>>({.rank = 2, .activation = "tanh"}) <
        1e-7);
  CHECK(checks::gradient_error<graft::BasicNoReft<double>>({.rank = 2, .activation = "tanh"}) <
        1e-7);
}

TEST_CASE("ReFT methods are the identity where their tensors say so") {
  const auto layer = checks::random_layer<double>(10, 12, 1);
  const auto x = checks::random_tensor<double>({2, 5, 12}, 2);
  const auto base = checks::base_output(layer, x);
  const auto site = checks::site_of(layer);
  const auto lo = checks::make<graft::BasicLoReft<double>>(all_tokens<graft::LoReft>(4), site);
  CHECK(checks::relative_error(checks::output(lo, layer, x), base) > 1e-2);
  set(lo, "W", get(lo, "R"));
  set(lo, "b", {});
  CHECK(checks::relative_error(checks::output(lo, layer, x), base) < 1e-15);
  const auto di = checks::make<graft::BasicDiReft<double>>(all_tokens<graft::DiReft>(4), site);
  set(di, "W1", {});
  set(di, "b", {});
  CHECK(checks::relative_error(checks::output(di, layer, x), base) < 1e-15);
  const auto no = checks::make<graft::BasicNoReft<double>>(all_tokens<graft::NoReft>(4), site);
  set(no, "W1", get(no, "W2"));
  set(no, "b", {});
  CHECK(checks::relative_error(checks::output(no, layer, x), base) < 1e-15);
  const auto bias =
      checks::make<graft::BasicLobiReft<double>>(all_tokens<graft::LobiReft>(4), site);
  set(bias, "b", {});
  CHECK(checks::relative_error(checks::output(bias, layer, x), base) < 1e-15);
}

TEST_CASE("an edited state has the coordinates that LoReFT and ConsReFT give it") {
  const auto layer = checks::random_layer<double>(10, 12, 1);
  const auto x = checks::random_tensor<double>({7, 12}, 2);
  const auto coordinates = [&](const auto& method) {
    const auto y = checks::output(method, layer, x);
    return graft::detail::product(y, get(method, "R"), 1.0, false, true);
  };
  const auto cons = checks::make<graft::BasicConsReft<double>>(all_tokens<graft::ConsReft>(3),
                                                               checks::site_of(layer));
  const auto c = coordinates(cons), b = get(cons, "b");
  for (Index i = 0; i < 7; ++i)
    for (Index k = 0; k < 3; ++k) CHECK(c(i, k) == Approx(b[k]).margin(1e-12));
  const auto lo = checks::make<graft::BasicLoReft<double>>(all_tokens<graft::LoReft>(3),
                                                           checks::site_of(layer));
  const auto target =
      graft::detail::product(checks::base_output(layer, x), get(lo, "W"), 1.0, false, true);
  const auto found = coordinates(lo), shift = get(lo, "b");
  for (Index i = 0; i < 7; ++i)
    for (Index k = 0; k < 3; ++k)
      CHECK(found(i, k) == Approx(target(i, k) + shift[k]).margin(1e-12));
}

TEST_CASE("only the tokens that are meant are edited, the others keep their bits") {
  const auto layer = checks::random_layer<float>(10, 12, 1);
  const auto x = checks::random_tensor<float>({3, 8, 12}, 2);
  const auto base = checks::base_output(layer, x);
  for (const bool tied : {true, false}) {
    const auto method = checks::make<graft::LoReft>(
        {.rank = 2, .positions = first_and_last(2, 3), .tied = tied}, checks::site_of(layer));
    auto context = std::make_shared<graft::ForwardContext>();
    context->batch = 3;
    context->token_mask = {0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0};
    context->prompt_lengths = {5, 8, 3};
    graft::Tape tape({.gradients = false, .training = false});
    tape.set_context(context);
    const auto y = method.apply(layer, tape.constant(x)).value();
    const std::vector<Index> edited = {2, 3, 5, 6, 8, 9, 13, 14, 15, 16, 18};
    for (Index row = 0; row < 24; ++row) {
      const bool same =
          std::equal(y.data() + row * 10, y.data() + (row + 1) * 10, base.data() + row * 10);
      CHECK(same == (std::find(edited.begin(), edited.end(), row) == edited.end()));
    }
  }
}

TEST_CASE("dropout acts on whole edited states and on these only") {
  const auto layer = checks::random_layer<double>(10, 12, 1);
  const auto x = checks::random_tensor<double>({4, 12}, 2);
  auto method = checks::make<graft::BasicLoReft<double>>(
      {.rank = 2, .positions = first_and_last(1, 1), .dropout = 0.5}, checks::site_of(layer));
  const auto quiet = checks::output(method, layer, x);
  const auto train = [&] {
    graft::BasicTape<double> tape({.gradients = false, .seed = 3});
    return method.apply(layer, tape.constant(x)).value().clone();
  };
  const auto y = train();
  int zero = 0;
  for (Index i = 0; i < y.size(); ++i) {
    const bool edited = i < 10 || i >= 30;
    if (!edited) CHECK(y[i] == quiet[i]);
    if (edited && y[i] == 0) ++zero;
    if (edited && y[i] != 0) CHECK(y[i] == Approx(2 * quiet[i]));
  }
  CHECK((zero > 3 && zero < 17));
  auto mask = BasicTensor<double>::full({4, 10}, 3);
  method.set_dropout_mask(mask);
  const auto given = train();
  for (Index i = 0; i < 10; ++i) CHECK(given[i] == Approx(3 * quiet[i]));
  for (Index i = 10; i < 20; ++i) CHECK(given[i] == quiet[i]);
}

TEST_CASE("ReFT configurations refuse what they do not know") {
  using Config = graft::LoReftConfig;
  CHECK_THROWS_WITH(Config{.rank = 0}.validate(), Catch::Contains("r 0"));
  CHECK_THROWS_WITH(Config{.component = "head_out"}.validate(), Catch::Contains("head_out"));
  CHECK_THROWS_WITH(Config{.component = "linear_out"}.validate(),
                    Catch::Contains("target_modules"));
  CHECK_THROWS_WITH(Config{.positions = "some"}.validate(), Catch::Contains("positions"));
  CHECK_THROWS_WITH(Config{.positions = first_and_last(0, 0)}.validate(),
                    Catch::Contains("at least 1"));
  CHECK_THROWS_WITH(Config{.activation = "bend"}.validate(), Catch::Contains("bend"));
  CHECK_THROWS_WITH(Config{.parametrisation = "cayley"}.validate(), Catch::Contains("cayley"));
  CHECK_THROWS_WITH(checks::trained<graft::LoReft>(all_tokens<graft::LoReft>(11)),
                    Catch::Contains("width of 10"));
}
