#pragma once

#include <concepts>

#include "graft/autograd/tape.hpp"
#include "graft/base/matrix_view.hpp"

namespace graft::inline v0_1 {

namespace detail {
template <class L>
struct LayerScalar {
  using type = float;
};
template <class L>
  requires requires { typename L::Scalar; }
struct LayerScalar<L> {
  using type = typename L::Scalar;
};
}  // namespace detail

/// Element type of a layer: its member type `Scalar`, else float.
template <class L>
using ScalarOf = typename detail::LayerScalar<std::remove_cvref_t<L>>::type;

/// A layer with frozen weights, y = x Wᵀ + b, that knows nothing of tapes:
/// `in_features()`, `out_features()`, `forward(x, y)` writes y, `backward_input(dy, dx)` adds dy W
/// to dx. x, dx: [rows, in_features], y, dy: [rows, out_features], row-major. Nothing to inherit.
template <class L>
concept FrozenLinear =
    requires(const L& layer, MatrixView<const ScalarOf<L>> in, MatrixView<ScalarOf<L>> out) {
      { layer.in_features() } -> std::convertible_to<Index>;
      { layer.out_features() } -> std::convertible_to<Index>;
      layer.forward(in, out);
      layer.backward_input(in, out);
    };

/// A frozen layer that can write rows [first, first + rows.rows()) of W into a buffer, and that
/// gives its bias (an empty tensor if there is none).
template <class L>
concept DenseWeights = requires(const L& layer, MatrixView<ScalarOf<L>> rows) {
  layer.write_weight(Index{}, rows);
  { layer.bias() } -> std::convertible_to<BasicTensor<ScalarOf<L>>>;
};

/// h · p, added to a product inside its tile loop. h: [rows, rank], p: [rank, columns].
template <std::floating_point T>
struct LowRankProduct {
  MatrixView<const T> h;
  MatrixView<const T> p;
};

/// A frozen layer whose kernels add a low-rank product on the fly: forward(x, y, term) writes x Wᵀ
/// + b + h p, backward_input(dy, dx, term, accumulate) writes or adds dy W + h p.
template <class L>
concept FusesLowRank =
    requires(const L& layer, MatrixView<const ScalarOf<L>> in, MatrixView<ScalarOf<L>> out,
             const LowRankProduct<ScalarOf<L>>* term) {
      layer.forward(in, out, term);
      layer.backward_input(in, out, term, true);
    };

/// A map on the tape from [..., in_features] to [..., out_features].
template <class L>
concept TapeLinear = requires(const L& layer, const BasicVar<ScalarOf<L>>& x) {
  { layer.in_features() } -> std::convertible_to<Index>;
  { layer.out_features() } -> std::convertible_to<Index>;
  { layer(x) } -> std::same_as<BasicVar<ScalarOf<L>>>;
};

/// What an adapter may wrap: a frozen layer, or anything that already maps on the tape.
template <class L>
concept Linear = FrozenLinear<L> || TapeLinear<L>;

}  // namespace graft::inline v0_1
