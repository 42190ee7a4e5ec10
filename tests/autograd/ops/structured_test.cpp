#include <catch2/catch.hpp>
#include <random>

#include "adapters/method_checks.hpp"
#include "graft/autograd/ops/block_circulant.hpp"
#include "graft/autograd/ops/orthonormal.hpp"
#include "graft/autograd/ops/rotate_pairs.hpp"
#include "graft/autograd/ops/row_products.hpp"
#include "graft/autograd/ops/sparse_matmul.hpp"
#include "graft/autograd/ops/spectrum.hpp"
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
  CHECK(gradient_error({{2, 3, 11}, {2, 3, 7}, {30}}, {2, 3, 11}, [&](const auto& v) {
          return add_sparse_matmul<double>(v[0], v[1], v[2], pattern);
        }) < 1e-8);
  const auto base = checks::random_tensor<double>({3, 50, 11}, 3);
  const auto sum = add_sparse_matmul<double>(tape.constant(base), tape.constant(x),
                                             tape.constant(values), pattern)
                       .value();
  CHECK(checks::relative_error(sum, add(tape.constant(base), tape.constant(y)).value()) < 1e-14);
  CHECK_THROWS_AS(
      add_sparse_matmul<double>(tape.constant(x), tape.constant(x), tape.constant(values), pattern),
      graft::ShapeError);
}

TEST_CASE("the gradients of sparse_matmul in float are those in double, for all widths of panels") {
  auto pattern = std::make_shared<graft::SparsePattern>();
  pattern->rows = 140;
  pattern->cols = 37;
  std::mt19937 generator(8);
  for (int i = 0; i < 333; ++i) {
    pattern->row.push_back(static_cast<std::int32_t>(generator() % 140));
    pattern->col.push_back(static_cast<std::int32_t>(generator() % 37));
  }
  const auto gradients = [&]<class T>(T, Index n) {
    const BasicParameter<T> x(checks::random_tensor<T>({n, 37}, 1)),
        v(checks::random_tensor<T>({333}, 2));
    BasicTape<T> tape;
    const auto y = sparse_matmul(tape.parameter(x), tape.parameter(v), pattern);
    tape.backward(y, checks::random_tensor<T>({n, 140}, 3));
    return std::pair(x.grad().clone(), v.grad().clone());
  };
  for (const Index n : {1, 15, 16, 33, 100, 128, 129, 200, 300}) {
    INFO(n);
    const auto [x, v] = gradients(1.0F, n);
    const auto [exact_x, exact_v] = gradients(1.0, n);
    double worst_x = 0, worst_v = 0;
    for (Index i = 0; i < x.size(); ++i) worst_x = std::max(worst_x, std::abs(x[i] - exact_x[i]));
    for (Index i = 0; i < v.size(); ++i) worst_v = std::max(worst_v, std::abs(v[i] - exact_v[i]));
    CHECK(worst_x < 1e-4);
    CHECK(worst_v < 1e-3);
  }
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
  const auto x = checks::random_tensor<double>({9, 4}, 1);
  BasicTape<double> tape;
  const auto back =
      wavelet_synthesis<double>(wavelet_analysis<double>(tape.constant(x), level), level);
  CHECK(checks::relative_error(back.value(), x) < 1e-14);
  CHECK(gradient_error({{9, 2}}, {12, 2}, [&](const auto& v) {
          return wavelet_analysis<double>(v[0], level);
        }) < 1e-8);
  CHECK(gradient_error({{12, 2}}, {9, 2}, [&](const auto& v) {
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

TEST_CASE("sparse_columns is sparse_matmul feature by feature, in float over odd widths too") {
  auto pattern = std::make_shared<graft::SparsePattern>();
  pattern->rows = 9;
  pattern->cols = 13;
  std::mt19937 generator(6);
  for (int i = 0; i < 40; ++i) {
    pattern->row.push_back(static_cast<std::int32_t>(generator() % 9));
    pattern->col.push_back(static_cast<std::int32_t>(generator() % 13));
  }
  for (const Index n : {1, 5, 16, 77, 150}) {
    const auto x = checks::random_tensor<float>({n, 13}, 1);
    const auto values = checks::random_tensor<float>({40}, 2);
    BasicTape<float> tape;
    const auto columns =
        sparse_columns(transpose(tape.constant(x)), tape.constant(values), pattern);
    const auto rows = sparse_matmul(tape.constant(x), tape.constant(values), pattern);
    CHECK(checks::relative_error(transpose(columns).value(), rows.value()) == 0);
    auto dense = BasicTensor<float>::zeros({9, 13});
    for (std::size_t i = 0; i < 40; ++i)
      dense(pattern->row[i], pattern->col[i]) += values[static_cast<Index>(i)];
    CHECK(checks::relative_error(rows.value(), matmul(tape.constant(x), tape.constant(dense),
                                                      graft::Transpose::no, graft::Transpose::yes)
                                                   .value()) < 1e-5);
  }
  CHECK(gradient_error({{13, 5}, {40}}, {9, 5}, [&](const auto& v) {
          return sparse_columns<double>(v[0], v[1], pattern);
        }) < 1e-8);
  BasicTape<double> tape;
  const auto wrong = tape.constant(BasicTensor<double>::zeros({12, 5}));
  CHECK_THROWS_AS(sparse_columns<double>(wrong, wrong, pattern), graft::ShapeError);
}

TEST_CASE("real_spectrum and inverse_spectrum undo each other and differentiate") {
  for (const Index n : {1, 2, 3, 8, 9, 12}) {
    INFO(n);
    const auto x = checks::random_tensor<double>({2, 3, n}, 1);
    BasicTape<double> tape;
    const auto z = real_spectrum(tape.constant(x));
    CHECK(z.shape() == Shape{2 * (n / 2 + 1), 6});
    CHECK(checks::relative_error(inverse_spectrum(z, x.shape()).value(), x) < 1e-14);
    CHECK(gradient_error({{3, n}}, {2 * (n / 2 + 1), 3},
                         [](const auto& v) { return real_spectrum(v[0]); }) < 1e-8);
    CHECK(gradient_error({{2 * (n / 2 + 1), 3}}, {3, n}, [&](const auto& v) {
            return inverse_spectrum(v[0], Shape{3, n});
          }) < 1e-8);
    CHECK_THROWS_AS(inverse_spectrum(z, Shape{5, n}), graft::ShapeError);
  }
}

TEST_CASE("row_products turns a Hadamard product of low-rank matrices into one of rank r²") {
  const auto b1 = checks::random_tensor<double>({3, 7}, 1),
             b2 = checks::random_tensor<double>({2, 7}, 2);
  const auto a1 = checks::random_tensor<double>({3, 5}, 3),
             a2 = checks::random_tensor<double>({2, 5}, 4);
  BasicTape<double> tape;
  const auto c = [&](const BasicTensor<double>& t) { return tape.constant(t); };
  const auto yes = graft::Transpose::yes, no = graft::Transpose::no;
  const auto dense = mul(matmul(c(b1), c(a1), yes, no), matmul(c(b2), c(a2), yes, no));
  const auto low = matmul(row_products(c(b1), c(b2)), row_products(c(a1), c(a2)), yes, no);
  CHECK(checks::relative_error(low.value(), dense.value()) < 1e-14);
  CHECK(gradient_error({{3, 5}, {2, 5}}, {6, 5},
                       [](const auto& v) { return row_products(v[0], v[1]); }) < 1e-8);
  CHECK_THROWS_AS(row_products(c(b1), c(a2)), graft::ShapeError);
}

TEST_CASE("rotate_pairs meets the other half of a group and differentiates") {
  BasicTape<double> tape;
  const auto x = BasicTensor<double>::from({1, 2, 3, 4, 5, 6, 7, 8}, {1, 8});
  const auto one = BasicTensor<double>::full({8}, 10), two = BasicTensor<double>::full({8}, 1);
  const auto y = rotate_pairs(tape.constant(x), tape.constant(one), tape.constant(two), 4).value();
  const double expected[] = {13, 24, 31, 42, 57, 68, 75, 86};
  CHECK(std::equal(y.begin(), y.end(), std::begin(expected)));
  CHECK(gradient_error({{2, 19, 6}, {6}, {6}}, {2, 19, 6},
                       [](const auto& v) { return rotate_pairs(v[0], v[1], v[2], 2); }) < 1e-8);
  CHECK_THROWS_AS(rotate_pairs(tape.constant(x), tape.constant(one), tape.constant(two), 3),
                  graft::ShapeError);
}

TEST_CASE("add, sub and mul repeat an operand over rows in float, whatever its leading ones") {
  const auto x = checks::random_tensor<float>({3, 5, 7}, 1);
  for (const Shape& shape : {Shape{7}, Shape{1, 7}, Shape{5, 7}, Shape{1, 1, 7}, Shape{5, 1}}) {
    INFO(shape.text());
    const auto v = checks::random_tensor<float>(shape, 2);
    BasicTape<float> tape;
    const auto a = tape.leaf(x), b = tape.leaf(v);
    const auto sum_of = add(a, b).value(), less = sub(a, b).value(), times = mul(a, b).value();
    auto slope = BasicTensor<float>::zeros(shape);
    for (Index i = 0; i < 15; ++i)
      for (Index j = 0; j < 7; ++j) {
        const Index k = v.size() == 7 ? j : v.size() == 35 ? i % 5 * 7 + j : i % 5;
        CHECK(sum_of[i * 7 + j] == x[i * 7 + j] + v[k]);
        CHECK(less[i * 7 + j] == x[i * 7 + j] - v[k]);
        CHECK(times[i * 7 + j] == x[i * 7 + j] * v[k]);
        slope[k] += x[i * 7 + j];
      }
    tape.backward(sum(mul(a, b)));
    CHECK(checks::relative_error(b.grad(), slope) < 1e-5);
  }
}
