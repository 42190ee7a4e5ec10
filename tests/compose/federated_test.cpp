#include "graft/compose/federated.hpp"

#include <catch2/catch.hpp>

#include "graft/optim/sgd.hpp"

using graft::Index;
using Wide = graft::BasicTensor<double>;
using Parameter = graft::BasicParameter<double>;

namespace {

Wide random(graft::TorchGenerator& generator, const graft::Shape& shape) {
  auto t = Wide::empty(shape);
  generator.normal(t.data(), t.size(), 0, 1);
  return t;
}

}  // namespace

TEST_CASE("Shares of clients sum to one; identical clients average to themselves") {
  const auto shares = graft::client_shares(std::vector<std::int64_t>{3, 0, 5});
  CHECK(shares[0] + shares[1] + shares[2] == Approx(1));
  CHECK(shares[2] == Approx(0.625));
  CHECK_THROWS_AS(graft::client_shares(std::vector<std::int64_t>{0}), graft::ValueError);
  graft::TorchGenerator generator(1);
  const auto t = random(generator, {3, 2}), u = random(generator, {4});
  const auto mean = graft::federated_average<double>({{t, u}, {t, u}, {t, u}}, shares);
  for (Index i = 0; i < t.size(); ++i) CHECK(mean[0][i] == Approx(t[i]));
  for (Index i = 0; i < u.size(); ++i) CHECK(mean[1][i] == Approx(u[i]));
  CHECK_THROWS_AS(graft::federated_average<double>({{t, u}, {t}}, {0.5, 0.5}), graft::ValueError);
  const auto chosen = graft::sample_clients(20, 0.1, generator);
  CHECK(chosen.size() == 2);
  CHECK(chosen[0] < chosen[1]);
}

TEST_CASE("A server with SGD and a rate of one takes the average") {
  graft::TorchGenerator generator(2);
  const std::vector<Parameter> theta{Parameter(random(generator, {3, 2})),
                                     Parameter(random(generator, {5}))};
  const std::vector<Wide> average{random(generator, {3, 2}), random(generator, {5})};
  graft::BasicSgd<double> optimizer(theta, {.learning_rate = 1});
  graft::server_step(optimizer, theta, average);
  for (std::size_t i = 0; i < 2; ++i) {
    CHECK_FALSE(theta[i].grad());
    for (Index j = 0; j < average[i].size(); ++j)
      CHECK(theta[i].value()[j] == Approx(average[i][j]));
  }
  CHECK_THROWS_AS(graft::server_step(optimizer, theta, {average[0]}), graft::ValueError);
  CHECK_THROWS_AS(graft::server_step(optimizer, theta, {average[1], average[0]}),
                  graft::ShapeError);
}

TEST_CASE("The proximal gradient is that of μ/2 ‖θ − anchor‖², for trained parameters only") {
  const Parameter a(Wide::full({2}, 3)), frozen(Wide::full({1}, 3), false);
  graft::add_proximal_gradient<double>({a, frozen}, {Wide::ones({2}), Wide::ones({1})}, 0.5);
  CHECK(a.grad()[1] == 1);
  CHECK_FALSE(frozen.grad());
  graft::add_proximal_gradient<double>({a}, {Wide::full({2}, 5)}, 1);
  CHECK(a.grad()[0] == -1);
  const auto w = graft::personal_step(Wide::full({1}, 1), Wide::full({1}, 3), 0.01, 15);
  CHECK(w[0] == Approx(1.3));
}

TEST_CASE("The residual makes averaged factors exact, as the ranks side by side are") {
  graft::TorchGenerator generator(3);
  std::vector<graft::UpdateFactors<double>> clients;
  for (const Index r : {2, 2, 2})
    clients.push_back({random(generator, {r, 5}), random(generator, {4, r})});
  const std::vector<double> shares{0.2, 0.5, 0.3};
  const auto residual = graft::averaging_residual(clients, shares, 2);
  for (Index o = 0; o < 4; ++o)
    for (Index j = 0; j < 5; ++j) {
      double exact = 0, mean = 0;
      for (std::size_t k = 0; k < 3; ++k)
        for (Index r = 0; r < 2; ++r)
          exact += 2 * shares[k] * clients[k].b(o, r) * clients[k].a(r, j);
      for (Index r = 0; r < 2; ++r) {
        double b = 0, a = 0;
        for (std::size_t k = 0; k < 3; ++k) {
          b += shares[k] * clients[k].b(o, r);
          a += shares[k] * clients[k].a(r, j);
        }
        mean += 2 * b * a;
      }
      CHECK(residual(o, j) == Approx(exact - mean));
    }
}

TEST_CASE("Messages decode within half a step; emulators keep evenly spaced layers") {
  graft::TorchGenerator generator(4);
  const auto x = random(generator, {3, 7});
  for (const int bits : {8, 16}) {
    const auto message = graft::quantise_message(x, bits);
    const auto back = message.values<double>({3, 7});
    for (Index i = 0; i < x.size(); ++i)
      CHECK(std::abs(back[i] - x[i]) <= message.scale / 2 * (1 + 1e-12));
  }
  CHECK(graft::quantise_message(Wide::zeros({2})).codes == std::vector<std::int16_t>{0, 0});
  CHECK_THROWS_AS(graft::quantise_message(x, 17), graft::ValueError);
  using List = std::vector<Index>;
  CHECK(graft::emulator_layers(4, 4) == List{0, 1, 2, 3});
  CHECK(graft::emulator_layers(6, 3) == List{0, 2, 5});  // 2.5 to even
  CHECK(graft::emulator_layers(6, 1) == List{0});
  CHECK(graft::offsite_layers(12) == List{0, 1, 2, 4, 7, 9, 10, 11});
  CHECK(graft::offsite_layers(5, 2, 1) == List{0, 1, 2, 3, 4});
  const auto ranges = graft::layer_ranges(List{0, 1, 3, 4, 5, 7});
  CHECK(ranges == std::vector<std::array<Index, 2>>{{0, 2}, {3, 6}, {7, 8}});
  CHECK_THROWS_AS(graft::emulator_layers(3, 4), graft::ValueError);
  CHECK_THROWS_AS(graft::offsite_layers(4, 2), graft::ValueError);
}
