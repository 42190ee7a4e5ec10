#include <catch2/catch.hpp>
#include <random>

#include "adapters/method_checks.hpp"
#include "graft/autograd/ops/block_circulant.hpp"
#include "graft/autograd/ops/orthonormal.hpp"
#include "graft/autograd/ops/sparse_matmul.hpp"
#include "graft/autograd/ops/wavelet.hpp"

using graft::BasicParameter;
using graft::BasicTape;
using graft::BasicTensor;
using graft::Index;
using graft::Shape;

namespace {

/// Worst relative gradient error of f(tape, parameters) summed with random weights.
template <class F>
double gradient_error(const std::vector<Shape>& shapes, const Shape& out, F&& f) {
  std::vector<BasicParameter<double>> parameters;
  unsigned seed = 3;
  for (const auto& shape : shapes)
    parameters.emplace_back(checks::random_tensor<double>(shape, seed++));
  const auto weights = checks::random_tensor<double>(out, 99);
  return graft::gradient_check(
             [&](BasicTape<double>& tape) {
               std::vector<graft::BasicVar<double>> vars;
               for (const auto& p : parameters) vars.push_back(tape.parameter(p));
               return sum(mul(f(vars), tape.constant(weights)));
             },
             parameters)
      .relative_error;
}

}  // namespace

TEST_CASE("sparse_matmul is the dense product, over more rows than one slice") {
  auto pattern = std::make_shared<graft::SparsePattern>();
  pattern->rows = 11;
  pattern->cols = 7;
  std::mt19937 generator(5);
  for (int i = 0; i < 30; ++i) {
    pattern->row.push_back(static_cast<std::int32_t>(generator() % 11));
    pattern->col.push_back(static_cast<std::int32_t>(generator() % 7));
  }
  const auto x = checks::random_tensor<double>({3, 50, 7}, 1);
  const auto values = checks::random_tensor<double>({30}, 2);
  auto dense = BasicTensor<double>::zeros({11, 7});
  for (std::size_t i = 0; i < 30; ++i)
    dense(pattern->row[i], pattern->col[i]) += values[static_cast<Index>(i)];
  BasicTape<double> tape({.gradients = false});
  const auto y = sparse_matmul<double>(tape.constant(x), tape.constant(values), pattern).value();
  CHECK(y.shape() == Shape{3, 50, 11});
  CHECK(checks::relative_error(y, matmul(tape.constant(x), tape.constant(dense),
                                         graft::Transpose::no, graft::Transpose::yes)
                                      .value()) < 1e-14);
  CHECK(gradient_error({{2, 3, 7}, {30}}, {2, 3, 11}, [&](const auto& v) {
          return sparse_matmul<double>(v[0], v[1], pattern);
        }) < 1e-8);
  CHECK_THROWS_AS(sparse_matmul<double>(tape.constant(values), tape.constant(values), pattern),
                  graft::ShapeError);
}

TEST_CASE("block_circulant differentiates for even and odd blocks and refuses other sizes") {
  for (const Index b : {1, 2, 3, 4, 7, 8}) {
    INFO(b);
    CHECK(gradient_error({{2, 3, 3 * b}, {5, 3, b}}, {2, 3, 5 * b},
                         [&](const auto& v) { return block_circulant(v[0], v[1]); }) < 1e-8);
  }
  BasicTape<double> tape;
  CHECK_THROWS_AS(block_circulant(tape.constant(BasicTensor<double>::zeros({2, 7})),
                                  tape.constant(BasicTensor<double>::zeros({2, 3, 2}))),
                  graft::ShapeError);
}

TEST_CASE("wavelet analysis and synthesis are transposes, and inverses inside of the signal") {
  auto level = std::make_shared<graft::WaveletLevel>();
  const double s = std::sqrt(3.0), n = 4 * std::sqrt(2.0);
  level->length = 9;
  level->low = {(1 + s) / n, (3 + s) / n, (3 - s) / n, (1 - s) / n};
  level->high = {(1 - s) / n, -(3 - s) / n, (3 + s) / n, -(1 + s) / n};
  level->half = 6;
  level->shift = 2;
  const auto x = checks::random_tensor<double>({4, 9}, 1);
  BasicTape<double> tape;
  const auto back =
      wavelet_synthesis<double>(wavelet_analysis<double>(tape.constant(x), level), level);
  CHECK(checks::relative_error(back.value(), x) < 1e-14);
  CHECK(gradient_error({{2, 9}}, {2, 12}, [&](const auto& v) {
          return wavelet_analysis<double>(v[0], level);
        }) < 1e-8);
  CHECK(gradient_error({{2, 12}}, {2, 9}, [&](const auto& v) {
          return wavelet_synthesis<double>(v[0], level);
        }) < 1e-8);
  CHECK_THROWS_AS(wavelet_synthesis<double>(tape.constant(x), level), graft::ShapeError);
}

TEST_CASE("orthonormal gives Q with its gradient") {
  CHECK(gradient_error({{7, 3}}, {7, 3}, [](const auto& v) { return orthonormal(v[0]); }) < 1e-7);
  BasicTape<double> tape;
  CHECK_THROWS_AS(orthonormal(tape.constant(BasicTensor<double>::zeros({2, 3}))),
                  graft::ShapeError);
}
