#include "graft/adapters/bottleneck/bottleneck.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"
#include "graft/adapters/bottleneck/bi_adapter.hpp"
#include "graft/adapters/bottleneck/houlsby.hpp"
#include "graft/adapters/bottleneck/parallel.hpp"
#include "graft/adapters/bottleneck/pfeiffer.hpp"

namespace {

using graft::Index;

template <class T>
struct Serial : graft::SerialAdapter<graft::BasicBottleneck<T>> {
  using Config = graft::HoulsbyConfig;
  Serial(const Config& config, const graft::LinearSiteInfo<T>& site, graft::InitContext<T>& context)
      : graft::SerialAdapter<graft::BasicBottleneck<T>>(
            graft::HoulsbyMethod<T>::make(config, site.out_features, context)) {}
};
template <class T>
struct Parallel : graft::BasicParallelAdapter<T> {
  using Config = graft::ParallelAdapterConfig;
  Parallel(const Config& config, const graft::LinearSiteInfo<T>& site,
           graft::InitContext<T>& context)
      : graft::BasicParallelAdapter<T>(graft::ParallelAdapterMethod<T>::make(
            config, site.in_features, site.out_features, context)) {}
};

}  // namespace

TEST_CASE("serial adapters begin near the identity, differentiate and merge if they are linear") {
  CHECK(checks::change_at_init<Serial<double>>({.adapter_dim = 4}) < 0.02);
  for (const char* activation : {"swish", "gelu", "gelu_new", "tanh", "identity"})
    CHECK(checks::gradient_error<Serial<double>>({.adapter_dim = 4, .non_linearity = activation}) <
          1e-7);
  CHECK(checks::merge_error<Serial<float>>({.adapter_dim = 3, .non_linearity = "identity"}) < 1e-5);
  CHECK(checks::merge_error<Serial<float>>({.adapter_dim = 3, .non_linearity = "identity"}, 7, 9,
                                           false) < 1e-5);
  CHECK_THROWS_WITH(checks::merge_error<Serial<float>>({.adapter_dim = 3}),
                    Catch::Contains("not linear"));
  CHECK(checks::trained<Serial<float>>({.adapter_dim = 3}, 11, 5) == 2 * 11 * 3 + 3 + 11);
}

TEST_CASE("parallel adapters begin as the identity, with a fixed scale or a learned one") {
  for (const bool learned : {false, true}) {
    const graft::ParallelAdapterConfig config{
        .adapter_dim = 4, .scaling = 2, .non_linearity = "gelu", .learn_scale = learned};
    CHECK(checks::change_at_init<Parallel<double>>(config) == 0);
    CHECK(checks::gradient_error<Parallel<double>>(config) < 1e-7);
    CHECK(checks::trained<Parallel<float>>(config, 10, 12) == 4 * 22 + 4 + 10 + (learned ? 1 : 0));
  }
  CHECK(checks::merge_error<Parallel<float>>({.adapter_dim = 3, .non_linearity = "identity"}) <
        1e-5);
}

TEST_CASE("bottleneck adapters refuse what they do not know") {
  CHECK_THROWS_WITH(graft::HoulsbyConfig{.non_linearity = "relux"}.validate(),
                    Catch::Contains("relux"));
  CHECK_THROWS_WITH(graft::HoulsbyConfig{.placement = {"head"}}.validate(),
                    Catch::Contains("head"));
  CHECK_THROWS_WITH(graft::ParallelAdapterConfig{.position = "norm"}.validate(),
                    Catch::Contains("norm"));
  CHECK_THROWS_WITH(graft::PfeifferConfig{.scaling = "free"}.validate(),
                    Catch::Contains("learned"));
}

TEST_CASE("a Pfeiffer adapter gates every row of the batch by itself") {
  graft::PfeifferConfig config{.adapter_dim = 3, .use_gating = true};
  graft::HiddenSiteInfo<double> site;
  site.width = 5;
  graft::StandaloneInit<double> init(3);
  const graft::BasicPfeiffer<double> adapter(config, site, init.context());
  checks::randomize(adapter);
  const auto x = checks::random_tensor<double>({8, 5}, 4),
             r = checks::random_tensor<double>({8, 5}, 5);
  const auto run = [&](const graft::BasicTensor<double>& out, const graft::BasicTensor<double>& res,
                       Index batch) {
    graft::BasicTape<double> tape({.gradients = false, .training = false});
    auto context = std::make_shared<graft::ForwardContext>();
    context->batch = batch;
    tape.set_context(context);
    return adapter.apply(tape.constant(out), tape.constant(out), tape.constant(res))
        .value()
        .clone();
  };
  const auto both = run(x, r, 2);
  const auto half = [](const graft::BasicTensor<double>& t) {
    auto h = graft::BasicTensor<double>::empty({4, 5});
    std::copy_n(t.begin() + 20, 20, h.begin());
    return h;
  };
  CHECK(checks::relative_error(run(half(x), half(r), 1), half(both)) < 1e-14);
}

TEST_CASE("the code book of a normal distribution is symmetric and packing keeps every code") {
  const auto& one = graft::normal_code_book(1);
  CHECK(one[1] == Approx(0.6744897502).epsilon(1e-9));
  const auto& four = graft::normal_code_book(4);
  REQUIRE(four.size() == 16);
  CHECK(four[15] == Approx(2.26549).epsilon(1e-5));
  CHECK(four[0] == Approx(-four[15]).epsilon(1e-9));
  for (const Index bits : {1, 2, 4}) {
    const auto w = checks::random_tensor<float>({5, 7}, static_cast<unsigned>(bits));
    graft::Tape tape;
    const auto expected = graft::detail::low_bit(tape.constant(w), bits).value();
    const auto packed = graft::pack_codes(w, bits);
    CHECK(static_cast<Index>(packed.bytes.size()) == (35 * bits + 7) / 8);
    CHECK(checks::relative_error(graft::unpack_codes<float>(packed, {5, 7}, bits), expected) <
          1e-6);
  }
}
