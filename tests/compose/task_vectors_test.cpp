#include "graft/compose/task_vectors.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"
#include "graft/compose/compressed_update.hpp"
#include "graft/compose/update_factors.hpp"

using graft::Index;
using graft::Tensor;

namespace {

Index non_zeros(const Tensor& t) { return t.size() - std::count(t.begin(), t.end(), 0.0F); }
bool near(const Tensor& a, const Tensor& b, float tolerance = 1e-5F) {
  if (a.size() != b.size()) return false;
  for (Index i = 0; i < a.size(); ++i)
    if (std::abs(a[i] - b[i]) > tolerance) return false;
  return true;
}

}  // namespace

TEST_CASE("Pruning keeps exactly the floor of its share and the first of equal entries") {
  const auto t = checks::random_tensor<float>({7, 11}, 1);
  CHECK(non_zeros(graft::keep_largest(t, 0.3)) == 23);
  CHECK(
      near(graft::keep_largest(graft::keep_largest(t, 0.3), 0.3), graft::keep_largest(t, 0.3), 0));
  const auto equal = graft::keep_largest(Tensor::ones({5}), 0.5);
  CHECK((equal[0] == 1 && equal[1] == 1 && equal[2] == 0));
  CHECK_THROWS_AS(graft::keep_largest(t, -0.1), graft::ValueError);
}

TEST_CASE("Random dropping keeps the mean, repeats by its seed and draws torch's bits") {
  graft::TorchGenerator one(5), two(5);
  const auto t = Tensor::ones({200, 100});
  const auto a = graft::drop_and_rescale(t, 0.4, one), b = graft::drop_and_rescale(t, 0.4, two);
  CHECK(near(a, b, 0));
  double mean = 0;
  for (const float v : a) mean += static_cast<double>(v) / static_cast<double>(a.size());
  CHECK(mean == Approx(1).margin(0.03));
  // torch.manual_seed(5); torch.bernoulli(torch.full((10,), 0.4))
  const int expected[] = {0, 1, 0, 0, 0, 1, 1, 0, 1, 0};
  for (Index i = 0; i < 10; ++i) CHECK((a[i] != 0) == (expected[i] == 1));
}

TEST_CASE("TIES of equal tasks is the trimmed task, and the order of tasks does not matter") {
  graft::TorchGenerator generator(0);
  const auto a = checks::random_tensor<float>({6, 5}, 2),
             b = checks::random_tensor<float>({6, 5}, 3);
  const graft::CombineRule rule{"ties", 0.4, "total"};
  CHECK(near(graft::combine_tasks<float>(rule, {a, a, a}, {1, 1, 1}, generator),
             graft::keep_largest(a, 0.4)));
  CHECK(near(graft::combine_tasks<float>(rule, {a, b}, {0.5, 2}, generator),
             graft::combine_tasks<float>(rule, {b, a}, {2, 0.5}, generator)));
  CHECK_THROWS_AS(
      graft::combine_tasks<float>(graft::CombineRule{"mean", 1, "total"}, {a}, {1}, generator),
      graft::ValueError);
  CHECK_THROWS_AS(
      graft::combine_tasks<float>(graft::CombineRule{"ties", 1, "most"}, {a}, {1}, generator),
      graft::ValueError);
  CHECK_THROWS_AS(graft::weighted_sum<float>({a, checks::random_tensor<float>({5, 6}, 4)}, {1, 1}),
                  graft::ShapeError);
}

TEST_CASE("Breadcrumbs without removal prunes by magnitude and keeps no outlier with it") {
  const auto t = checks::random_tensor<float>({4, 20}, 5);
  const graft::Breadcrumbs plain{0.3, 0, false, true};
  const auto mask = graft::breadcrumbs_mask(t, plain);
  const auto kept = graft::keep_largest(t, 0.3);
  for (Index i = 0; i < t.size(); ++i)
    CHECK((mask[static_cast<std::size_t>(i)] != 0) == (kept[i] != 0));
  const auto middle = graft::breadcrumbs_mask(t, {0.3, 0.1, true, true});
  CHECK(std::count(middle.begin(), middle.end(), 1) == 4 * 6);
}

TEST_CASE("A compressed update survives its code, which refuses broken data") {
  const auto t = checks::random_tensor<float>({31, 17}, 6);
  const auto update = graft::compress_update<float>(t.span(), 0.07);
  const int parameter = graft::rice_parameter(0.07);
  const auto stream = graft::rice_encode(update, parameter);
  CHECK(graft::rice_decode(stream.bytes, parameter, t.size(), update.count()) == update.sign);
  auto cut = stream.bytes;
  cut.resize(cut.size() / 2);
  CHECK_THROWS_AS(graft::rice_decode(cut, parameter, t.size(), update.count()), graft::IoError);
  CHECK_THROWS_AS(graft::rice_decode(std::vector<std::uint8_t>(900, 255), parameter, t.size(), 3),
                  graft::IoError);
  CHECK(graft::dot(update, update) ==
        Approx(update.scale * update.scale * static_cast<double>(update.count())));
  CHECK(graft::rice_parameter(0.05) == 4);
  CHECK(graft::rice_parameter(0.5) == 0);
}

TEST_CASE("Low-rank factors: side by side exact, cut off as the whole matrix is") {
  const graft::UpdateFactors<float> f{checks::random_tensor<float>({3, 13}, 7),
                                      checks::random_tensor<float>({9, 3}, 8)},
      g{checks::random_tensor<float>({2, 13}, 9), checks::random_tensor<float>({9, 2}, 10)};
  const auto both = graft::concatenated_factors<float>({f, g}, {0.5, -2});
  CHECK(both.rank() == 5);
  CHECK(near(graft::product_of(both),
             graft::weighted_sum<float>({graft::product_of(f), graft::product_of(g)}, {0.5, -2})));
  for (const Index rank : {1, 2, 4, 5}) {
    const auto small = graft::truncated_factors(both, {rank, 0});
    CHECK(small.rank() == rank);
    CHECK(near(graft::product_of(small),
               graft::product_of(graft::truncated_factors(graft::product_of(both), {rank, 0})),
               1e-4F));
  }
  CHECK(graft::truncated_factors(graft::product_of(both), {}).rank() == 5);
  const auto s = Tensor::from({3.0F, 2.0F, 1.0F}, {3});
  CHECK(graft::chosen_rank(s, {0, 0.6}) == 1);
  CHECK(graft::chosen_rank(s, {0, 0.7}) == 2);
  CHECK(graft::chosen_rank(s, {0, 1.0}) == 3);
  CHECK_THROWS_AS(graft::chosen_rank(s, {0, 1.5}), graft::ValueError);
}
