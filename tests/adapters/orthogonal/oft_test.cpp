#include "graft/adapters/orthogonal/oft.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicOFT;
using graft::OFT;
using graft::OFTConfig;

TEST_CASE("OFT begins as the identity, differentiates and merges") {
  for (const auto& config :
       {OFTConfig{.block_size = 4}, OFTConfig{.block_size = 4, .use_cayley_neumann = false},
        OFTConfig{.block_size = 3, .block_share = true},
        OFTConfig{.block_size = 4, .use_cayley_neumann = false, .cayley_sign = "plus"},
        OFTConfig{.blocks = 2, .block_size = 0, .num_cayley_neumann_terms = 3}}) {
    CHECK(checks::change_at_init<BasicOFT<double>>(config) < 1e-13);
    CHECK(checks::gradient_error<BasicOFT<double>>(config) < 1e-7);
    CHECK(checks::merge_error<OFT>(config) < 1e-5);
  }
  CHECK(checks::trained<OFT>({.block_size = 4}, 10, 12) == 3 * 6);
  CHECK(checks::trained<OFT>({.block_size = 4, .block_share = true}, 10, 12) == 6);
}

TEST_CASE("OFT refuses both a number and a size of blocks") {
  CHECK_THROWS_WITH(checks::trained<OFT>({.blocks = 2, .block_size = 4}),
                    Catch::Contains("exactly one"));
}

TEST_CASE("OFT's exact transform and its Neumann series have opposite signs unless told") {
  const auto layer = checks::random_layer<double>(10, 12, 1);
  const auto x = checks::random_tensor<double>({5, 12}, 2);
  const auto of = [&](const OFTConfig& config) {
    const auto method = checks::make<BasicOFT<double>>(config, checks::site_of(layer));
    checks::randomize(method, 0.02);
    return checks::output(method, layer, x);
  };
  const auto series = of({.block_size = 4});
  OFTConfig exact{.block_size = 4, .use_cayley_neumann = false};
  CHECK(checks::relative_error(of(exact), series) > 1e-2);
  exact.cayley_sign = "plus";
  CHECK(checks::relative_error(of(exact), series) < 1e-5);
}

TEST_CASE("OFT leaves out a share of its blocks while training") {
  const graft::BasicDenseLinear<double> one(graft::BasicTensor<double>::identity(12));
  auto method = checks::make<BasicOFT<double>>({.block_size = 2, .module_dropout = 0.4},
                                               checks::site_of(one));
  checks::randomize(method, 0.5);
  const auto x = checks::random_tensor<double>({1, 12}, 2);
  const auto resting = [&](bool training, std::uint64_t seed) {
    graft::BasicTape<double> tape({.gradients = false, .training = training, .seed = seed});
    const auto y = method.apply(one, tape.constant(x)).value();
    std::vector<int> list;
    for (graft::Index k = 0; k < 6; ++k) list.push_back(y[2 * k] == x[2 * k] ? 1 : 0);
    return list;
  };
  const auto count = [](const std::vector<int>& list) {
    return std::count(list.begin(), list.end(), 1);
  };
  CHECK(count(resting(false, 1)) == 0);
  bool differ = false;
  for (std::uint64_t seed = 1; seed < 9; ++seed) {
    CHECK(count(resting(true, seed)) == 2);
    CHECK(resting(true, seed) == resting(true, seed));
    differ = differ || resting(true, seed) != resting(true, 1);
  }
  CHECK(differ);
  method.rotation().set_block_mask(graft::BasicTensor<double>::from({0, 1, 0, 1, 1, 0}, {6}));
  CHECK(resting(true, 1) == std::vector<int>{0, 1, 0, 1, 1, 0});
}

TEST_CASE("COFT's projection shortens long blocks alone") {
  const auto q = graft::BasicTensor<double>::from({3, 4, 0, 0.01, 0, 0}, {2, 3});
  const auto p = graft::coft_projection(q, 0.5);
  const double limit = 0.5 / std::sqrt(2.0);
  CHECK(std::sqrt(2 * (p(0, 0) * p(0, 0) + p(0, 1) * p(0, 1))) == Approx(limit));
  CHECK(p(0, 1) / p(0, 0) == Approx(4.0 / 3));
  CHECK(p(1, 0) == 0.01);
  CHECK(graft::coft_projection(p, 1.0).data() == p.data());
}

TEST_CASE("OFT reads the name that its tensor has in files of others") {
  const auto layer = checks::random_layer<double>(10, 12, 1);
  auto method = checks::make<BasicOFT<double>>({.block_size = 4}, checks::site_of(layer));
  const graft::Shape shape{3, 6};
  method.before_load([&](std::string_view name) { return name == "oft_R" ? &shape : nullptr; });
  CHECK(method.tensors()[0].name == "oft_R");
  CHECK(method.file_tensors()[0].name == "oft_R.weight");
  CHECK_THROWS_WITH(checks::trained<OFT>({.cayley_sign = "both"}), Catch::Contains("both"));
}
