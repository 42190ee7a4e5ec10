#include "graft/adapters/kronecker/surm.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicSURM;
using graft::BasicTensor;
using graft::Index;
using graft::SURM;
using graft::SURMConfig;
using Matrix = BasicTensor<double>;

namespace {

Matrix product(const Matrix& a, const Matrix& b) { return graft::detail::product(a, b); }
Matrix circulant(const double* v, Index n) {
  auto c = Matrix::empty({n, n});
  for (Index i = 0; i < n; ++i)
    for (Index j = 0; j < n; ++j) c(i, j) = v[(i - j + n) % n];
  return c;
}
Matrix toeplitz(const double* v, Index n) {
  auto c = Matrix::empty({n, n});
  for (Index i = 0; i < n; ++i)
    for (Index j = 0; j < n; ++j) c(i, j) = v[std::abs(i - j)];
  return c;
}
Matrix skew(const double* h, Index n) {
  auto c = Matrix::empty({n, n});
  for (Index k = 0; k < n; ++k)
    for (Index j = 0; j < n; ++j) c(k, j) = k >= j ? h[k - j] : -h[n + k - j];
  return c;
}

}  // namespace

TEST_CASE("SURM begins as the identity, differentiates and merges") {
  for (const char* variant : {"circulant", "toeplitz", "ldr", "kronecker"})
    for (const auto& [out, in] :
         {std::pair<Index, Index>{9, 9}, {12, 6}, {6, 12}, {15, 3}, {3, 9}}) {
      INFO(variant << " " << out << " " << in);
      const SURMConfig config{.variant = variant, .scaling = 1.5, .terms = 2, .rank = 3};
      CHECK(checks::change_at_init<BasicSURM<double>>(config, out, in) == 0);
      CHECK(checks::gradient_error<BasicSURM<double>>(config, out, in) < 1e-7);
      CHECK(checks::merge_error<SURM>(config, out, in) < 1e-5);
      const Index most = std::max(in, out);
      CHECK(checks::trained<SURM>(config, out, in) == (config.variant == "kronecker" ? in + out
                                                       : config.variant == "ldr"     ? 4 * most
                                                                                     : 2 * most));
    }
}

TEST_CASE("SURM's products are those of the matrices that it does not form") {
  for (const char* variant : {"circulant", "toeplitz", "ldr"})
    for (const auto& [out, in] : {std::pair<Index, Index>{7, 7}, {1, 1}, {8, 4}, {5, 15}}) {
      INFO(variant << " " << out << " " << in);
      const SURMConfig config{.variant = variant, .scaling = 0.5, .terms = 3};
      const graft::BasicDenseLinear<double> layer(Matrix::zeros({out, in}));
      const auto method = checks::make<BasicSURM<double>>(config, checks::site_of(layer));
      checks::randomize(method, 1.0);
      const auto first = method.tensors()[0].parameter.value(),
                 second = method.tensors()[1].parameter.value();
      const auto found = merge_linear(layer, method).dense_weight();
      const Index n = std::min(in, out);
      auto expected = Matrix::zeros({out, in});
      for (Index t = 0; t < std::max(in, out) / n; ++t) {
        auto block = Matrix::zeros({n, n});
        const double* a = first.data() + t * (first.size() / first.dim(0));
        const double* b = second.data() + t * (second.size() / second.dim(0));
        if (config.variant == "circulant") {
          auto v = Matrix::empty({n});
          for (Index i = 0; i < n; ++i) v[i] = a[i] * b[i];
          block = circulant(v.data(), n);
        } else if (config.variant == "toeplitz") {
          block = product(toeplitz(b, n), toeplitz(a, n));
        } else {
          for (Index i = 0; i < 3; ++i) {
            const auto term = product(circulant(b + i * n, n), skew(a + i * n, n));
            for (Index e = 0; e < n * n; ++e) block[e] += term[e];
          }
        }
        for (Index i = 0; i < n; ++i)
          for (Index j = 0; j < n; ++j)
            expected(out > in ? t * n + i : i, out > in ? j : t * n + j) = 0.5 * block(i, j);
      }
      CHECK(checks::relative_error(found, expected) < 1e-13);
    }
}

TEST_CASE("SURM refuses layers that its blocks do not tile") {
  CHECK_THROWS_WITH(checks::trained<SURM>({}, 10, 12), Catch::Contains("does not divide 12"));
  CHECK_THROWS_WITH(checks::trained<SURM>({.variant = "kronecker", .rank = 4}, 10, 12),
                    Catch::Contains("does not divide 10"));
  CHECK_THROWS_WITH(checks::trained<SURM>({.variant = "hankel"}), Catch::Contains("hankel"));
}
