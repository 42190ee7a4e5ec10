#include "graft/tensor/transposed.hpp"

#include <array>
#include <catch2/catch.hpp>

using graft::Index;

TEST_CASE("A transposed tensor has its last two axes swapped, matrix by matrix") {
  const auto check = []<class T>(T) {
    for (const auto [n, rows, cols] :
         {std::array<Index, 3>{1, 1, 1}, {1, 1, 7}, {1, 35, 2}, {3, 17, 33}, {2, 0, 4}}) {
      auto x = graft::BasicTensor<T>::empty({n, rows, cols});
      for (Index i = 0; i < x.size(); ++i) x[i] = static_cast<T>(i);
      const auto y = graft::transposed(x);
      REQUIRE(y.shape() == graft::Shape{n, cols, rows});
      Index wrong = 0;
      for (Index k = 0; k < n; ++k)
        for (Index i = 0; i < rows; ++i)
          for (Index j = 0; j < cols; ++j)
            wrong += y[(k * cols + j) * rows + i] != x[(k * rows + i) * cols + j];
      CHECK(wrong == 0);
    }
    CHECK_THROWS_AS(graft::transposed(graft::BasicTensor<T>::zeros({3})), graft::ShapeError);
  };
  check(0.0F);
  check(0.0);
}
