#include "graft/interop/eigen.hpp"

#include <Eigen/Dense>
#include <catch2/catch.hpp>

#include "graft/adapters/low_rank/lora.hpp"
#include "graft/autograd/ops/loss.hpp"
#include "graft/optim/adamw.hpp"

namespace {

using Catch::Contains;
using graft::Index;
namespace interop = graft::interop;
using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using ColMajor = Eigen::MatrixXf;

template <class M>
concept HasLayer = requires(M&& m) { interop::out_by_in(std::forward<M>(m)); };
template <class M>
concept HasRows = requires(M&& m) { interop::rows(std::forward<M>(m)); };

/// Largest difference between what a layer gives and x Wᵀ + b, and its way back.
template <class Layer>
float difference(const Layer& layer, const Eigen::MatrixXf& w, const Eigen::VectorXf& b) {
  const RowMajor x = RowMajor::Random(5, w.cols());
  RowMajor y(5, w.rows());
  layer.forward({x.data(), 5, w.cols()}, {y.data(), 5, w.rows()});
  const RowMajor expected = (x * w.transpose()).rowwise() + b.transpose();
  RowMajor dx = RowMajor::Ones(5, w.cols());
  layer.backward_input({y.data(), 5, w.rows()}, {dx.data(), 5, w.cols()});
  const RowMajor wanted = RowMajor::Ones(5, w.cols()) + y * w;
  return std::max((y - expected).cwiseAbs().maxCoeff(), (dx - wanted).cwiseAbs().maxCoeff());
}

}  // namespace

TEST_CASE("Matrices of either order, maps and blocks become layers without a copy") {
  const Index out = 7, in = 11;
  const ColMajor w = ColMajor::Random(out, in);
  const Eigen::VectorXf b = Eigen::VectorXf::Random(out);
  const auto bias = interop::vector(b);
  CHECK(bias.data() == b.data());

  const auto columns = interop::out_by_in(w, bias);
  CHECK(columns.weight().data() == w.data());
  CHECK(columns.in_features() == in);
  CHECK(columns.out_features() == out);
  CHECK(difference(columns, w, b) < 1e-5F);

  const RowMajor r = w;
  const auto lines = interop::out_by_in(r, bias);
  static_assert(std::is_same_v<decltype(lines), const graft::DenseLinear>);
  CHECK(lines.weight().data() == r.data());
  CHECK(difference(lines, w, b) < 1e-5F);

  const RowMajor turned = w.transpose();
  CHECK(interop::in_by_out(turned, bias).weight().data() == turned.data());
  CHECK(difference(interop::in_by_out(turned, bias), w, b) < 1e-5F);
  const ColMajor turned_columns = w.transpose();
  CHECK(difference(interop::in_by_out(turned_columns, bias), w, b) < 1e-5F);

  RowMajor large = RowMajor::Random(out + 4, in + 5);
  large.block(2, 3, out, in) = w;
  const auto block = interop::out_by_in(large.block(2, 3, out, in), bias);
  CHECK(block.weight().data() == &large(2, 3));
  CHECK(difference(block, w, b) < 1e-5F);

  const Eigen::Map<const ColMajor> map(w.data(), out, in);
  CHECK(interop::out_by_in(map).weight().data() == w.data());
  CHECK(difference(interop::out_by_in(map, bias), w, b) < 1e-5F);
}

TEST_CASE("What cannot be pointed into does not compile, what lies apart is refused") {
  static_assert(HasLayer<const ColMajor&>);
  static_assert(HasLayer<Eigen::Map<ColMajor>>);
  static_assert(!HasLayer<ColMajor>);  // a temporary
  static_assert(HasRows<const RowMajor&> && !HasRows<RowMajor>);
  static_assert(!HasLayer<decltype(2.0F * ColMajor())>);             // an expression
  static_assert(!HasLayer<const Eigen::Matrix<int, 2, 2>&>);         // whole numbers
  static_assert(!HasLayer<const Eigen::DiagonalMatrix<float, 3>&>);  // no matrix in memory
  const ColMajor w = ColMajor::Random(6, 8);
  const Eigen::Map<const ColMajor, 0, Eigen::Stride<Eigen::Dynamic, 2>> apart(
      w.data(), 3, 4, Eigen::Stride<Eigen::Dynamic, 2>(6, 2));
  CHECK_THROWS_WITH(interop::out_by_in(apart), Contains("stride of 2"));
  const Eigen::VectorXf b = Eigen::VectorXf::Random(8);
  CHECK_THROWS_WITH(interop::out_by_in(w, interop::vector(b)), Contains("expected [6]"));
  const RowMajor x = RowMajor::Random(4, 6);
  CHECK_THROWS_WITH(interop::rows(x.leftCols(3)), Contains("3 elements lie 6 apart"));
}

TEST_CASE("Input and results go to and from Eigen") {
  const RowMajor x = RowMajor::Random(3, 4);
  CHECK(interop::rows(x).data() == x.data());
  const ColMajor columns = x;
  const auto copied = interop::copy(columns);
  CHECK(copied.data() != columns.data());
  CHECK(copied(1, 2) == x(1, 2));
  CHECK(interop::copy(2 * columns)(2, 3) == 2 * x(2, 3));
  CHECK(interop::eigen(copied).data() == copied.data());
  CHECK(ColMajor(interop::eigen(copied)) == columns);
}

TEST_CASE("An Eigen matrix is wrapped, trained and merged back") {
  const Index out = 6, in = 9;
  const ColMajor w = ColMajor::Random(out, in);
  const ColMajor wanted = w + 0.3F * Eigen::VectorXf::Random(out) * Eigen::RowVectorXf::Random(in);
  const RowMajor x = RowMajor::Random(64, in);
  const RowMajor y = x * wanted.transpose();

  const auto frozen = interop::out_by_in(w);
  graft::Adapted layer(frozen, graft::LoRA({.rank = 2, .alpha = 2}, frozen));
  graft::AdamW optimizer(layer.parameters(), {.learning_rate = 3e-2});
  for (int step = 0; step < 400; ++step) {
    graft::Tape tape;
    const auto loss =
        graft::mse(layer(tape.constant(interop::rows(x))), tape.constant(interop::rows(y)));
    tape.backward(loss);
    optimizer.step();
    optimizer.zero_grad();
  }
  const auto layer_merged = layer.merge();
  const ColMajor merged = interop::eigen(layer_merged.weight());
  CHECK((merged - wanted).norm() < 0.02F * (w - wanted).norm());
}
