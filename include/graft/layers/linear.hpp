#pragma once

#include <utility>

#include "graft/autograd/ops/elementwise.hpp"
#include "graft/autograd/ops/matmul.hpp"
#include "graft/autograd/ops/shape.hpp"
#include "graft/kernels/sparse.hpp"
#include "graft/layers/concepts.hpp"

/// The operations that adapters ask of the layer they wrap, the same for every `Linear`.
namespace graft::inline v0_1 {

namespace detail {

template <class L>
void check_input(const L& layer, const Shape& x) {
  if (x.rank() < 1 || x.cols() != static_cast<Index>(layer.in_features()))
    throw ShapeError(
        concat("linear: input ", x.text(), ", expected [..., ", layer.in_features(), "]"));
}

/// A result that `write` writes; zeros where nobody reads it.
template <std::floating_point T, class Write>
BasicTensor<T> unless_unread(const BasicTape<T>& tape, const Shape& shape, const Write& write) {
  if (tape.unread()) return BasicTensor<T>::zeros(shape);
  auto y = BasicTensor<T>::empty(shape);
  write(y.matrix());
  return y;
}

}  // namespace detail

/// base(x). A frozen layer is one node that keeps nothing of x. The layer must outlive the backward
/// pass.
template <Linear L>
BasicVar<ScalarOf<L>> linear(const L& base, const BasicVar<ScalarOf<L>>& x) {
  if constexpr (TapeLinear<L>) {
    return base(x);
  } else {
    using T = ScalarOf<L>;
    detail::check_input(base, x.shape());
    auto y = detail::unless_unread(
        x.tape(), x.shape().with_last(base.out_features()),
        [&](const MatrixView<T>& to) { base.forward(x.value().matrix(), to); });
    return x.tape().record(
        std::move(y), x.requires_grad(), [&base, gx = x.grad_ref()](const BasicTensor<T>& dy) {
          const Index in = base.in_features();
          if constexpr (FusesLowRank<L>) {
            auto [data, accumulate] = gx.buffer();
            base.backward_input(dy.matrix(), MatrixView<T>(data, dy.rows(), in), nullptr,
                                accumulate);
          } else {
            base.backward_input(dy.matrix(), MatrixView<T>(gx.accumulator(), dy.rows(), in));
          }
        });
  }
}

/// base(x) + scaling · (x_low Aᵀ) Bᵀ, the low-rank term inside the base's own product where the
/// base can do that. a: [rank, in], b: [out, rank]; `x_low` is x, or x after dropout. Keeps x_low
/// and the product x_low Aᵀ of rank columns (only what the wanted gradients need).
template <Linear L>
BasicVar<ScalarOf<L>> linear_low_rank(const L& base, const BasicVar<ScalarOf<L>>& x,
                                      const BasicVar<ScalarOf<L>>& x_low,
                                      const BasicVar<ScalarOf<L>>& a,
                                      const BasicVar<ScalarOf<L>>& b, ScalarOf<L> scaling) {
  using T = ScalarOf<L>;
  const Index in = base.in_features(), out = base.out_features(), rank = a.rows();
  if (a.shape() != Shape{rank, in} || b.shape() != Shape{out, rank})
    throw ShapeError(concat("linear_low_rank: factors ", a.shape().text(), " and ",
                            b.shape().text(), " for ", in, " inputs and ", out, " outputs"));
  if constexpr (requires { base.low_rank(x, x_low, a, b, scaling); }) {
    return base.low_rank(x, x_low, a, b, scaling);
  } else if constexpr (TapeLinear<L> || !FusesLowRank<L>) {
    auto h = scale(matmul(x_low, a, Transpose::no, Transpose::yes), scaling);
    return add(linear(base, x), matmul(h, b, Transpose::no, Transpose::yes));
  } else {
    detail::check_input(base, x.shape());
    detail::check_input(base, x_low.shape());
    const Index rows = x.rows();
    const bool same_input = x.value().data() == x_low.value().data();
    auto h = BasicTensor<T>::empty({rows, rank});  // scaling · x_low Aᵀ
    kernels::gemm(false, true, rows, rank, in, scaling, x_low.value().data(), in, a.value().data(),
                  in, T{0}, h.data(), rank);
    const auto write = [&](const MatrixView<T>& to) {
      auto bt = BasicTensor<T>::empty({rank, out});
      kernels::transpose(b.value().data(), out, rank, rank, bt.data(), out);
      const LowRankProduct<T> term{h.matrix(), bt.matrix()};
      base.forward(x.value().matrix(), to, &term);
    };
    auto y = detail::unless_unread(x.tape(), x.shape().with_last(out), write);
    const bool wants =
        x.requires_grad() || x_low.requires_grad() || a.requires_grad() || b.requires_grad();
    return x.tape().record(
        std::move(y), wants,
        [&base, same_input, scaling, rows, in, out, rank, gx = x.grad_ref(), gl = x_low.grad_ref(),
         ga = a.grad_ref(), gb = b.grad_ref(),
         h = b.requires_grad() ? x.tape().keep(h) : BasicSaved<T>{},
         xl = a.requires_grad() ? x_low.saved() : BasicSaved<T>{}, va = a.value(),
         vb = b.value()](const BasicTensor<T>& dy) {
          const auto dh = BasicTensor<T>::empty({rows, rank});  // scaling · dy B
          if (gb && !(ga || gx || gl)) {
            auto [db, accumulate] = gb.buffer();
            kernels::gemm(true, false, out, rank, rows, T{1}, dy.data(), out, h.get().data(), rank,
                          accumulate ? T{1} : T{0}, db, rank);
          } else if (gb) {
            auto [db, accumulate] = gb.buffer();
            kernels::low_rank_gradients(rows, out, rank, scaling, dy.data(), out, vb.data(),
                                        h.get().data(), dh.data(), accumulate ? T{1} : T{0}, db);
          } else {
            kernels::gemm(false, false, rows, rank, out, scaling, dy.data(), out, vb.data(), rank,
                          T{0}, dh.data(), rank);
          }
          if (ga) {
            auto [da, accumulate] = ga.buffer();
            kernels::gemm(true, false, rank, in, rows, T{1}, dh.data(), rank, xl.get().data(), in,
                          accumulate ? T{1} : T{0}, da, in);
          }
          const bool fuse = same_input && gx && gl;
          if (gx) {
            const LowRankProduct<T> back{dh.matrix(), va.matrix()};
            auto [dx, accumulate] = gx.buffer();
            base.backward_input(dy.matrix(), MatrixView<T>(dx, rows, in), fuse ? &back : nullptr,
                                accumulate);
          }
          if (gl && !fuse) {
            auto [dx, accumulate] = gl.buffer();
            kernels::gemm(false, false, rows, in, rank, T{1}, dh.data(), rank, va.data(), in,
                          accumulate ? T{1} : T{0}, dx, in);
          }
        });
  }
}

namespace detail {

/// W of y = x Wᵀ + b as the layer computes it: what it maps the identity to, without the image of
/// zero.
template <Linear L>
BasicVar<ScalarOf<L>> weight_by_units(const L& base, BasicTape<ScalarOf<L>>& tape) {
  const Index in = base.in_features();
  auto units = BasicTensor<ScalarOf<L>>::zeros({in + 1, in});
  for (Index i = 0; i < in; ++i) units(i, i) = 1;
  const auto y = linear(base, tape.constant(std::move(units)));
  return transpose(sub(slice(y, 0, 0, in), slice(y, 0, in, 1)));
}

}  // namespace detail

/// The weight of a base as a matrix [out, in]: written out by a frozen layer with `DenseWeights`,
/// else what the layer maps the identity to. Shares the elements where the base holds them so.
template <Linear L>
BasicTensor<ScalarOf<L>> weight_of(const L& base) {
  using T = ScalarOf<L>;
  if constexpr (requires { base.dense_weight(); }) {
    return base.dense_weight();
  } else if constexpr (DenseWeights<L>) {
    auto w = BasicTensor<T>::empty({base.out_features(), base.in_features()});
    base.write_weight(0, w.matrix());
    return w;
  } else {
    BasicTape<T> tape({.gradients = false, .training = false});
    return detail::weight_by_units(base, tape).value();
  }
}

/// The bias of a base, [out]; an empty tensor if the base says that it has none.
template <Linear L>
BasicTensor<ScalarOf<L>> bias_of(const L& base) {
  using T = ScalarOf<L>;
  if constexpr (requires { base.bias(); }) {
    return base.bias();
  } else {
    BasicTape<T> tape({.gradients = false, .training = false});
    return linear(base, tape.constant(BasicTensor<T>::zeros({1, base.in_features()})))
        .value()
        .reshape({base.out_features()});
  }
}

/// x Wᵀ (+ b) for a weight on the tape: the path of methods whose weight is a function of trained
/// parameters. weight: [out, in].
template <std::floating_point T>
BasicVar<T> affine(const BasicVar<T>& x, const BasicVar<T>& weight,
                   const BasicTensor<T>& bias = {});
/// The same with a trained weight and bias; `bias` may be empty.
template <std::floating_point T>
BasicVar<T> affine(const BasicVar<T>& x, const BasicParameter<T>& weight,
                   const BasicParameter<T>& bias);

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/layers/impl/linear_impl.hpp"
#endif
