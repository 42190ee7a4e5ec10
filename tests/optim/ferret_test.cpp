#include "graft/optim/ferret.hpp"

#include <catch2/catch.hpp>

using graft::Index;
using Parameter = graft::BasicParameter<double>;

TEST_CASE("Ferret: groups end before the tensor that makes them too large") {
  using Groups = std::vector<std::vector<Index>>;
  CHECK(graft::ferret_groups(std::vector<Index>{10, 2, 3, 4, 30, 1}, 2.5) ==
        Groups{{0}, {1, 2}, {3}, {4}, {5}});  // the median is 3.5
  CHECK(graft::ferret_groups(std::vector<Index>{5, 5, 5}, 0.9) == Groups{{0}, {1}, {2}});
  CHECK(graft::ferret_groups({}, 0.9).empty());
  CHECK(graft::ferret_seed_counts(std::vector<double>{1, 0.5, 0.001}, 9) ==
        std::vector<Index>{9, 4, 2});
  CHECK(graft::ferret_seed_counts(std::vector<double>{0, 0}, 9) == std::vector<Index>{2, 2});
  CHECK(graft::ferret_rate(10, 10, 40) == 7.5);
}

TEST_CASE("Ferret: a server rebuilds an update from coordinates along shared directions") {
  const auto old_a = graft::BasicTensor<double>::from(std::vector<double>{1, 2, 3, 4, 5}, {5});
  const auto old_b = graft::BasicTensor<double>::from(std::vector<double>{-1, 0, 1}, {3});
  const Parameter a(old_a.clone()), b(old_b.clone());
  graft::BasicFerret<double> method(
      {a, b}, {.num_seeds = 20000, .momentum = 0, .server_lr = 1, .unbiased = true});
  const auto old = graft::flat_values<double>({a, b});
  graft::TorchGenerator generator(2);
  const auto orders = method.draw_orders(generator);
  // Nothing moved: nothing is sent.
  for (const auto& group : method.coordinates(old, orders))
    for (const double c : group) CHECK(c == 0);
  for (double& v : a.value()) v -= 0.3;
  b.value()[1] += 0.2;
  const auto sent = method.coordinates(old, orders);
  const auto moved = graft::flat_values<double>({a, b});
  graft::set_flat_values<double>({a, b}, old);
  method.aggregate({sent, sent}, std::vector<double>{0.5, 0.5}, 1);
  const auto rebuilt = graft::flat_values<double>({a, b});
  for (std::size_t i = 0; i < moved.size(); ++i) CHECK(rebuilt[i] == Approx(moved[i]).margin(0.04));
  CHECK_THROWS_AS(method.aggregate({sent}, std::vector<double>{}, 1), graft::ValueError);
  CHECK_THROWS_AS(method.set_pool({{1.0}}), graft::ShapeError);
}

TEST_CASE("Ferret: momentum of the pool and the largest norm of one seed") {
  const Parameter w(graft::BasicTensor<double>::zeros({2}));
  graft::BasicFerret<double> method({w}, {.num_seeds = 2, .momentum = 0.5, .clip = 2},
                                    [](Index, Index seed, Index) {
                                      return std::vector<double>{seed == 0 ? 1.0 : 0.0, 1};
                                    });
  method.set_pool({{4, 0}});
  method.aggregate({{{{1, 3}}}}, std::vector<double>{1}, 0.1);
  CHECK(method.pool()[0] == std::vector<double>{3, 3});
  CHECK(w.value()[0] == Approx(-0.1 * std::sqrt(2.0)));  // 3 √2 is clipped to 2
  CHECK(w.value()[1] == Approx(-0.1 * (std::sqrt(2.0) + 2)));
}
