#include "graft/adapters/sparse/intrinsic_dimension.hpp"

#include <atomic>
#include <catch2/catch.hpp>
#include <map>
#include <string>
#include <vector>

#include "adapters/method_checks.hpp"

using graft::BasicIntrinsicDimension;
using graft::BasicSAID;
using graft::BasicTensor;
using graft::Index;
using graft::IntrinsicDimension;
using graft::IntrinsicDimensionConfig;
using graft::SAID;
using graft::SAIDConfig;

namespace {

IntrinsicDimensionConfig subspace(const char* projection, Index d = 7) {
  IntrinsicDimensionConfig config;
  config.projection = projection;
  config.dimension = d;
  config.train_bias = true;
  return config;
}

/// Columns of the map of a method.
BasicTensor<double> matrix_of(const graft::SubspaceMap<double>& map) {
  auto p = BasicTensor<double>::empty({map.outputs(), map.inputs()});
  auto column = BasicTensor<double>::empty({map.outputs()});
  for (Index j = 0; j < map.inputs(); ++j) {
    auto unit = BasicTensor<double>::zeros({map.inputs()});
    unit[j] = 1;
    map.apply(unit.data(), column.data());
    for (Index i = 0; i < map.outputs(); ++i) p(i, j) = column[i];
  }
  return p;
}

/// ⟨P θ, y⟩ − ⟨θ, Pᵀ y⟩, relative.
double adjoint_error(const graft::SubspaceMap<double>& map) {
  const auto theta = checks::random_tensor<double>({map.inputs()}, 1),
             dy = checks::random_tensor<double>({map.outputs()}, 2);
  auto y = BasicTensor<double>::empty({map.outputs()}),
       back = BasicTensor<double>::zeros({map.inputs()});
  map.apply(theta.data(), y.data());
  map.add_adjoint(dy.data(), back.data());
  double a = 0, b = 0, size = 0;
  for (Index i = 0; i < y.size(); ++i) a += y[i] * dy[i], size += std::abs(y[i] * dy[i]);
  for (Index i = 0; i < back.size(); ++i) b += theta[i] * back[i];
  return std::abs(a - b) / size;
}

}  // namespace

TEST_CASE("Subspace methods begin as the identity, differentiate and merge") {
  for (const char* projection : {"dense", "sparse", "raw", "fastfood"}) {
    INFO(projection);
    const auto config = subspace(projection);
    CHECK(checks::change_at_init<BasicIntrinsicDimension<double>>(config) < 1e-14);
    CHECK(checks::gradient_error<BasicIntrinsicDimension<double>>(config) < 1e-7);
    CHECK(checks::merge_error<IntrinsicDimension>(config) < 1e-5);
    CHECK(checks::trained<IntrinsicDimension>(config) == 7);
    SAIDConfig said;
    said.dimension = 9;
    said.projection = projection;
    said.train_bias = true;
    CHECK(checks::change_at_init<BasicSAID<double>>(said) < 1e-14);
    CHECK(checks::gradient_error<BasicSAID<double>>(said) < 1e-7);
    CHECK(checks::merge_error<SAID>(said) < 1e-5);
    CHECK(checks::trained<SAID>(said) == 9);
  }
  CHECK(SAIDConfig().projection == "fastfood");
}

TEST_CASE("One vector moves the tensors of all layers, by columns of unit norm") {
  const auto first = checks::random_layer<double>(5, 6, 1),
             second = checks::random_layer<double>(4, 5, 2, false);
  for (const char* projection : {"dense", "sparse", "raw"}) {
    INFO(projection);
    graft::StandaloneInit<double> init(3);
    auto one = checks::site_of(first, "one"), two = checks::site_of(second, "two");
    one.all_sites = two.all_sites = {{"one", {5, 6}}, {"two", {4, 5}}};
    const auto config = subspace(projection, 3);
    const BasicIntrinsicDimension<double> a(config, one, init.context()),
        b(config, two, init.context());
    CHECK(a.trains_bias());
    CHECK_FALSE(b.trains_bias());
    CHECK(a.tensors()[0].parameter == b.tensors()[0].parameter);
    std::vector<double> norms(3, 0);
    for (const auto* map : {&a.map(), &a.map(true), &b.map()}) {
      const auto p = matrix_of(*map);
      for (Index i = 0; i < p.size(); ++i) norms[static_cast<std::size_t>(i % 3)] += p[i] * p[i];
    }
    for (const double n : norms) {
      if (std::string(projection) == "raw")
        CHECK(n == Approx(55 * 1e-4).epsilon(0.6));
      else
        CHECK(n == Approx(1).epsilon(1e-6));
    }
    // The bias and the weight move by P θ, row by row.
    const auto theta = checks::random_tensor<double>({3}, 4);
    a.tensors()[0].parameter.assign(theta);
    const auto merged = merge_linear(second, b);
    const auto p = matrix_of(b.map());
    for (Index o = 0; o < 4; ++o)
      for (Index i = 0; i < 5; ++i) {
        double change = 0;
        for (Index j = 0; j < 3; ++j) change += p(o * 5 + i, j) * theta[j];
        CHECK(merged.dense_weight()(o, i) == Approx(second.dense_weight()(o, i) + change));
      }
    CHECK(checks::relative_error(merge_linear(first, a).bias(), first.bias()) > 1e-6);
  }
}

TEST_CASE("Projections follow from their seed, kept in memory or not, and have their adjoints") {
  for (const char* projection : {"dense", "sparse", "raw", "fastfood"}) {
    INFO(projection);
    const std::vector<Index> sizes{300, 7, 41};
    const auto maps = [&](std::uint64_t seed, Index kept) {
      return graft::detail::SubspaceDraws<double>(sizes, 20, seed, kept).maps(projection);
    };
    const auto kept = maps(5, 1 << 20), drawn = maps(5, 0), other = maps(6, 1 << 20);
    for (std::size_t t = 0; t < 3; ++t) {
      CHECK(adjoint_error(*kept[t]) < 1e-14);
      CHECK(adjoint_error(*drawn[t]) < 1e-14);
      const auto p = matrix_of(*kept[t]);
      CHECK(checks::relative_error(matrix_of(*drawn[t]), p) < 1e-14);
      CHECK(checks::relative_error(matrix_of(*other[t]), p) > 0.1);
    }
  }
}

TEST_CASE("A seed means the same projection for ever: files hold it and no projection") {
  struct Element {
    std::size_t tensor;
    Index row, column;
    double value;
  };
  const std::map<std::string, std::vector<Element>> expected{
      // Two of them by a program of its own, from splitmix64 and normal quantiles.
      {"raw", {{0, 0, 0, -0.0015345177}, {0, 299, 19, -0.0022292427}, {2, 40, 19, 0.0025852149}}},
      {"dense", {{0, 0, 0, -0.0081530609}, {0, 299, 19, -0.012007634}, {2, 40, 19, 0.013925049}}},
      {"sparse",
       {{0, 12, 0, 0}, {0, 13, 0, 0.18257419}, {1, 4, 2, -0.21320072}, {2, 24, 19, 0.25}}},
      {"fastfood", {{0, 0, 0, -0.14661439}, {0, 299, 19, -0.03220414}, {2, 40, 19, 0.12099088}}}};
  for (const auto& [projection, elements] : expected) {
    const auto maps = graft::detail::SubspaceDraws<double>({300, 7, 41}, 20, 5).maps(projection);
    for (const auto& e : elements) {
      INFO(projection << " " << e.tensor << " " << e.row << " " << e.column);
      CHECK(matrix_of(*maps[e.tensor])(e.row, e.column) == Approx(e.value).epsilon(1e-6));
    }
  }
}

TEST_CASE("A projection of many blocks is the same whether it is kept or not") {
  const std::vector<Index> sizes{9000};
  const auto of = [&](Index kept) {
    return graft::detail::SubspaceDraws<double>(sizes, 30, 1, kept).maps("dense")[0];
  };
  const auto kept = of(1 << 20), drawn = of(0);
  CHECK(adjoint_error(*drawn) < 1e-13);
  const auto theta = checks::random_tensor<double>({30}, 1);
  auto a = BasicTensor<double>::empty({9000}), b = a.clone();
  kept->apply(theta.data(), a.data());
  drawn->apply(theta.data(), b.data());
  CHECK(checks::relative_error(b, a) < 1e-13);
}

TEST_CASE("A projection that is not kept follows another θ, and draws once for the same one") {
  std::atomic<int> draws = 0;
  const graft::DrawnMap<double> map(6, 3, BasicTensor<double>::full({2}, 0.5),
                                    [&](Index b, Index count, double* out) {
                                      ++draws;
                                      for (Index i = 0; i < 2 * count; ++i)
                                        out[i] = static_cast<double>(6 * b + i);
                                    });
  std::vector<double> y(6);
  const auto at = [&](std::vector<double> theta) {
    map.apply(theta.data(), y.data());
    for (std::size_t i = 0; i < 6; ++i) {
      const auto first = static_cast<double>(2 * i);
      CHECK(y[i] == Approx(0.5 * (first * theta[0] + (first + 1) * theta[1])));
    }
  };
  at({1, 2});
  at({1, 2});
  CHECK(draws == 2);
  at({1, 3});
  CHECK(draws == 4);
  at({0, 0});
  CHECK(draws == 4);
}

TEST_CASE("Normal numbers of a projection have the moments of normal ones") {
  std::vector<double> z(400001);
  graft::detail::draw_normals(7, std::ssize(z), 2, z.data());
  double moments[5] = {}, neighbours = 0;
  for (std::size_t i = 0; i < z.size(); ++i) {
    for (int k = 1; k < 5; ++k) moments[k] += std::pow(z[i] / 2, k) / static_cast<double>(z.size());
    if (i > 0) neighbours += z[i] * z[i - 1] / 4 / static_cast<double>(z.size());
  }
  CHECK(moments[1] == Approx(0).margin(0.008));
  CHECK(moments[2] == Approx(1).margin(0.01));
  CHECK(moments[3] == Approx(0).margin(0.03));
  CHECK(moments[4] == Approx(3).margin(0.08));
  CHECK(neighbours == Approx(0).margin(0.008));
}

TEST_CASE("Fastfood is its definition and keeps norms on average") {
  const Index d = 11, size = 50, length = graft::fastfood_length(size, d);
  REQUIRE(length == 64);
  const auto draw = graft::draw_fastfood<double>(length, 3);
  const graft::FastfoodMap<double> map(size, d, draw);
  const auto theta = checks::random_tensor<double>({d}, 1);
  auto p = BasicTensor<double>::zeros({length});
  double square = 0;
  for (const double g : draw.normals) square += g * g;
  for (Index i = 0; i < d; ++i) p[i] = draw.signs[static_cast<std::size_t>(i)] * theta[i];
  graft::walsh_hadamard(p.data(), length);
  auto q = BasicTensor<double>::empty({length});
  for (Index k = 0; k < length; ++k)
    q[k] = draw.normals[static_cast<std::size_t>(k)] *
           p[draw.permutation[static_cast<std::size_t>(k)]];
  graft::walsh_hadamard(q.data(), length);
  auto expected = BasicTensor<double>::empty({size}), y = expected.clone();
  for (Index i = 0; i < size; ++i)
    expected[i] = q[i] / (std::sqrt(64 * square) * std::sqrt(50.0 / 64));
  map.apply(theta.data(), y.data());
  CHECK(checks::relative_error(y, expected) < 1e-14);

  double before = 0, after = 0;
  for (const double t : theta) before += t * t;
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    graft::FastfoodMap<double>(size, d, graft::draw_fastfood<double>(length, seed))
        .apply(theta.data(), y.data());
    for (const double v : y) after += v * v / 40;
  }
  CHECK(after == Approx(before).epsilon(0.15));
  CHECK_THROWS_AS(graft::FastfoodMap<double>(65, d, draw), graft::ShapeError);
  // d above the size of a tensor: nothing of theta is cut.
  const auto wide =
      matrix_of(graft::FastfoodMap<double>(5, 30, graft::draw_fastfood<double>(32, 1)));
  for (Index j = 0; j < 30; ++j) {
    double norm = 0;
    for (Index i = 0; i < 5; ++i) norm += std::abs(wide(i, j));
    CHECK(norm > 0);
  }
}

TEST_CASE("Subspace methods refuse what cannot be") {
  CHECK_THROWS_WITH(checks::trained<IntrinsicDimension>(subspace("round")),
                    Catch::Contains("round"));
  CHECK_THROWS_WITH(checks::trained<IntrinsicDimension>(subspace("dense", 0)),
                    Catch::Contains("d 0"));
  SAIDConfig said;
  said.dimension = 1;
  CHECK_THROWS_WITH(checks::trained<SAID>(said), Catch::Contains("1 tensors"));
  const auto layer = checks::random_layer<double>(5, 6, 1);
  auto method =
      checks::make<BasicIntrinsicDimension<double>>(subspace("dense"), checks::site_of(layer));
  CHECK_THROWS_AS(method.set_map(std::make_shared<graft::DenseMap<double>>(
                      BasicTensor<double>::zeros({30, 6}))),
                  graft::ShapeError);
}
