#include <catch2/catch.hpp>
#include <filesystem>

#include "adapters/method_checks.hpp"
#include "graft/compose/adapter_model.hpp"
#include "graft/optim/adamw.hpp"
#include "graft/train/trainer.hpp"
#include "io/temporary_folder.hpp"

namespace {

using graft::Index;

struct RankOneConfig {
  double start = 0.1;
  graft::TargetModules target_modules = {};
  graft::Selection select = {};
  static constexpr const char* kPeftType = "RANK_ONE";
  template <class Visitor>
  void fields(Visitor& v) {
    v("start", start);
    v("target_modules", target_modules);
  }
};

/// y = base(x) + (x vᵀ) u: 30 lines that give everything that follows.
template <class T>
class RankOne {
 public:
  using Scalar = T;
  using Config = RankOneConfig;

  static graft::MethodInfo info() {
    return {.peft_type = "RANK_ONE",
            .name = "rank one",
            .family = "own",
            .paper = "",
            .sites = "linear",
            .parameters = "in + out",
            .in_peft = false};
  }
  RankOne(const Config& config, const graft::LinearSiteInfo<T>& site, graft::InitContext<T>&)
      : v_(graft::BasicTensor<T>::full({1, site.in_features}, static_cast<T>(config.start))),
        u_(graft::BasicTensor<T>::zeros({1, site.out_features})) {}

  template <graft::Linear L>
  graft::BasicVar<T> apply(const L& base, const graft::BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto h =
        graft::matmul(x, tape.parameter(v_), graft::Transpose::no, graft::Transpose::yes);
    return graft::add(graft::linear(base, x), graft::matmul(h, tape.parameter(u_)));
  }
  std::vector<graft::AdapterTensor<T>> tensors() const {
    return {{.name = "v", .parameter = v_, .index = {}, .file_shape = {}},
            {.name = "u", .parameter = u_, .index = {}, .file_shape = {}, .group = "lora_B"}};
  }

 private:
  graft::BasicParameter<T> v_, u_;
};

/// A network of one's own: two layers and their places for adapters.
struct Network {
  graft::LinearSite first{"first", checks::random_layer<float>(6, 5, 1)};
  graft::LinearSite second{"second", checks::random_layer<float>(3, 6, 3)};
  graft::SiteTable sites;
  Network() { sites.linear = {&first, &second}; }
  graft::Var operator()(const graft::Var& x) const { return second(graft::tanh(first(x))); }
  graft::Tensor run(const graft::Tensor& x) const {
    graft::Tape tape({.gradients = false});
    return (*this)(tape.constant(x)).value().clone();
  }
};

}  // namespace

TEST_CASE("An adapter of one's own has exact gradients, chains and merges") {
  using M = RankOne<double>;
  static_assert(graft::LinearAdapter<M>);
  const auto layer = checks::random_layer<double>(4, 5, 1);
  const auto site = checks::site_of(layer);
  const M inner = checks::make<M>({}, site), outer = checks::make<M>({}, site);
  checks::randomize(inner, 0.3, 21);
  checks::randomize(outer, 0.3, 31);
  const graft::Adapted chain(graft::Adapted(layer, inner), outer);
  static_assert(graft::TapeLinear<std::remove_const_t<decltype(chain)>>);
  CHECK(chain.tensors().size() == 4);
  CHECK(graft::trainable_elements(chain.tensors()) == 2 * (4 + 5));

  const auto x = checks::random_tensor<double>({3, 5}, 5);
  const auto check = graft::gradient_check(
      [&](auto& tape) { return graft::mean(graft::square(chain(tape.constant(x)))); },
      chain.parameters());
  CHECK(check.relative_error < 1e-7);

  graft::BasicTape<double> tape({.gradients = false});
  const auto expected = chain(tape.constant(x)).value();
  const auto merged = chain.merge();
  CHECK(checks::relative_error(graft::linear(merged, tape.constant(x)).value(), expected) < 1e-12);
  const graft::Adapted erased(graft::BasicAnyLinear<double>(layer), inner);
  const graft::Adapted direct(layer, inner);
  CHECK(checks::relative_error(erased(tape.constant(x)).value(), direct(tape.constant(x)).value()) <
        1e-12);
}

TEST_CASE("An adapter of one's own is counted, grouped, trained, saved and loaded in a network") {
  graft::MethodRegistry<float> registry;
  registry.add(graft::MethodList<graft::LinearMethod<RankOne<float>>>{});
  Network network;
  graft::BasicAdapterModel<float> adapters(network.sites, registry);
  RankOneConfig config;
  config.target_modules.names = {"first", "second"};
  auto& set = adapters.add("mine", config);
  CHECK(set.tensors().size() == 4);
  const auto groups = graft::parameter_groups(adapters, graft::LoRAPlusConfig{.ratio = 16});
  REQUIRE(groups.size() == 4);
  CHECK(groups[0].parameters.size() == 2);
  CHECK(groups[2].parameters.size() == 2);
  CHECK(groups[2].learning_rate_ratio == 16);
  Index count = 0;
  for (const auto& p : adapters.parameters()) count += p.size();
  CHECK(count == 5 + 6 + 6 + 3);

  const auto x = checks::random_tensor<float>({8, 5}, 7),
             y = checks::random_tensor<float>({8, 3}, 8);
  const auto before = network.run(x);
  graft::AdamW optimizer(groups, {.learning_rate = 1e-2});
  float first = 0, last = 0;
  for (int step = 0; step < 50; ++step) {
    graft::Tape tape;
    const auto loss = graft::mse(network(tape.constant(x)), tape.constant(y));
    last = loss.item();
    if (step == 0) first = last;
    tape.backward(loss);
    optimizer.step();
    optimizer.zero_grad();
  }
  CHECK(last < 0.8F * first);
  const auto trained = network.run(x);
  CHECK(checks::relative_error(trained, before) > 0.1);

  const graft_test::TemporaryFolder folder;
  adapters.save("mine", folder.path());
  Network fresh;
  graft::BasicAdapterModel<float> loaded(fresh.sites, registry);
  loaded.load("again", folder.path());
  const auto again = fresh.run(x);
  CHECK(std::equal(trained.begin(), trained.end(), again.begin()));
}
