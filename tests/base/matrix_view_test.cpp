#include "graft/base/matrix_view.hpp"

#include <catch2/catch.hpp>

#include <numeric>
#include <type_traits>
#include <vector>

using graft::ConstMatrixView;
using graft::MatrixView;

TEST_CASE("a matrix view addresses rows by their stride", "[base]") {
  std::vector<float> data(4 * 7);
  std::iota(data.begin(), data.end(), 0.0f);
  const MatrixView<float> view(data.data(), 4, 5, 7);
  CHECK(view.rows() == 4);
  CHECK(view.cols() == 5);
  CHECK(view.row_stride() == 7);
  CHECK(view(3, 4) == 25.0f);
  CHECK(view.row(2) == data.data() + 14);
  view(1, 0) = -1.0f;
  CHECK(data[7] == -1.0f);
}

TEST_CASE("a view is contiguous only if its rows touch", "[base]") {
  std::vector<float> data(20);
  CHECK(MatrixView<float>(data.data(), 4, 5).contiguous());
  CHECK_FALSE(MatrixView<float>(data.data(), 4, 3, 5).contiguous());
  CHECK(MatrixView<float>(data.data(), 1, 3, 5).contiguous());
  CHECK(MatrixView<float>().contiguous());
}

TEST_CASE("middle_rows keeps the stride and shifts the start", "[base]") {
  std::vector<float> data(6 * 9);
  std::iota(data.begin(), data.end(), 0.0f);
  const ConstMatrixView whole(data.data(), 6, 8, 9);
  const ConstMatrixView part = whole.middle_rows(2, 3);
  CHECK(part.rows() == 3);
  CHECK(part.row_stride() == 9);
  CHECK(part(0, 0) == 18.0f);
  CHECK(part(2, 7) == 43.0f);
}

TEST_CASE("a mutable view converts to a read-only one and not the reverse", "[base]") {
  static_assert(std::is_convertible_v<MatrixView<float>, ConstMatrixView>);
  static_assert(!std::is_convertible_v<ConstMatrixView, MatrixView<float>>);
  std::vector<float> data(6, 2.0f);
  const ConstMatrixView view = MatrixView<float>(data.data(), 2, 3);
  CHECK(view.data() == data.data());
  CHECK(view(1, 2) == 2.0f);
}

TEST_CASE("impossible shapes of a view are refused with the numbers", "[base]") {
  std::vector<float> data(6);
  CHECK_THROWS_AS(MatrixView<float>(data.data(), -1, 3), graft::ShapeError);
  CHECK_THROWS_AS(MatrixView<float>(data.data(), 2, -3), graft::ShapeError);
  CHECK_THROWS_WITH(MatrixView<float>(data.data(), 2, 3, 2),
                    Catch::Contains("2 x 3") && Catch::Contains("stride 2"));
  CHECK_NOTHROW(MatrixView<float>(data.data(), 1, 3, 0));
}
