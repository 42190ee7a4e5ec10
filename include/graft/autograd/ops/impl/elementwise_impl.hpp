#pragma once

#include <cmath>
#include <utility>

#include "graft/autograd/ops/elementwise.hpp"

namespace graft::inline v0_1::detail {

/// y[i] = f(a[i], b[i]) with broadcasting.
template <class T, class F>
BasicTensor<T> broadcast_apply(const char* operation, const BasicTensor<T>& a,
                               const BasicTensor<T>& b, F f) {
  if (a.shape() == b.shape()) {
    BasicTensor<T> y = BasicTensor<T>::empty(a.shape());
    parallel_chunks(y.size(), [&](Index first, Index last) {
      for (Index i = first; i < last; ++i) y[i] = f(a[i], b[i]);
    });
    return y;
  }
  const Shape shape = broadcast_shape(operation, a.shape(), b.shape());
  BasicTensor<T> y = BasicTensor<T>::empty(shape);
  if (shape == a.shape() && b.size() == 1) {
    const T value = b[0];
    for (Index i = 0; i < y.size(); ++i) y[i] = f(a[i], value);
  } else if (shape == a.shape() && repeats(shape, b.shape())) {
    const Index n = b.size();
    for (Index r = 0; r < shape.elements() / n; ++r)
      for (Index j = 0; j < n; ++j) y[r * n + j] = f(a[r * n + j], b[j]);
  } else {
    for_each_broadcast(shape, a.shape(), [&](Index i, Index j) { y[i] = a[j]; });
    for_each_broadcast(shape, b.shape(), [&](Index i, Index j) { y[i] = f(y[i], b[j]); });
  }
  return y;
}

/// The same by a kernel `f(a, b, y, n)`, where the operands lie so that one can be used; by `g`, of
/// two numbers, where they do not.
template <class T, class F, class G>
BasicTensor<T> broadcast_kernel(const char* operation, const BasicTensor<T>& a,
                                const BasicTensor<T>& b, F f, G g) {
  const bool same = a.shape() == b.shape();
  if (!same && (b.size() < 2 || broadcast_shape(operation, a.shape(), b.shape()) != a.shape() ||
                !repeats(a.shape(), b.shape())))
    return broadcast_apply(operation, a, b, g);
  BasicTensor<T> y = BasicTensor<T>::empty(a.shape());
  const Index n = b.size(), rows = n == 0 ? 0 : a.size() / n;
  if (rows == 1) {
    f(a.data(), b.data(), y.data(), n);
  } else {
    const Index group = std::max<Index>(1, (Index{1} << 14) / std::max<Index>(1, n));
    ThreadPool::global().parallel_for((rows + group - 1) / group, [&](Index k) {
      for (Index r = k * group; r < std::min(rows, (k + 1) * group); ++r)
        f(a.data() + r * n, b.data(), y.data() + r * n, n);
    });
  }
  return y;
}

template <class T>
BasicTensor<T> broadcast_add(const BasicTensor<T>& a, const BasicTensor<T>& b) {
  return broadcast_kernel(
      "add", a, b, [](const T* u, const T* v, T* y, Index n) { kernels::add(u, v, y, n); },
      [](T u, T v) { return u + v; });
}

template <class T>
BasicTensor<T> broadcast_sub(const BasicTensor<T>& a, const BasicTensor<T>& b) {
  return broadcast_kernel(
      "sub", a, b, [](const T* u, const T* v, T* y, Index n) { kernels::sub(u, v, y, n); },
      [](T u, T v) { return u - v; });
}

template <class T>
BasicTensor<T> broadcast_mul(const BasicTensor<T>& a, const BasicTensor<T>& b) {
  return broadcast_kernel(
      "mul", a, b, [](const T* u, const T* v, T* y, Index n) { kernels::mul(u, v, y, n); },
      [](T u, T v) { return u * v; });
}

template <class T>
BasicTensor<T> scaled(const BasicTensor<T>& x, T factor) {
  BasicTensor<T> y = BasicTensor<T>::empty(x.shape());
  kernels::scale(factor, x.data(), y.data(), x.size());
  return y;
}

}  // namespace graft::inline v0_1::detail

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicVar<T> add(const BasicVar<T>& a, const BasicVar<T>& b) {
  auto& tape = detail::common_tape("add", a, b);
  auto y = detail::broadcast_add(a.value(), b.value());
  return tape.record(std::move(y), a.requires_grad() || b.requires_grad(),
                     [ga = a.grad_ref(), gb = b.grad_ref()](const BasicTensor<T>& dy) {
                       if (ga) ga.add(detail::reduce_to(dy, ga.shape()));
                       if (gb) gb.add(detail::reduce_to(dy, gb.shape()));
                     });
}

template <std::floating_point T>
BasicVar<T> sub(const BasicVar<T>& a, const BasicVar<T>& b) {
  auto& tape = detail::common_tape("sub", a, b);
  auto y = detail::broadcast_sub(a.value(), b.value());
  return tape.record(std::move(y), a.requires_grad() || b.requires_grad(),
                     [ga = a.grad_ref(), gb = b.grad_ref()](const BasicTensor<T>& dy) {
                       if (ga) ga.add(detail::reduce_to(dy, ga.shape()));
                       if (gb) gb.add(detail::reduce_to(detail::scaled(dy, T{-1}), gb.shape()));
                     });
}

template <std::floating_point T>
BasicVar<T> mul(const BasicVar<T>& a, const BasicVar<T>& b) {
  auto& tape = detail::common_tape("mul", a, b);
  auto y = detail::broadcast_mul(a.value(), b.value());
  return tape.record(
      std::move(y), a.requires_grad() || b.requires_grad(),
      [ga = a.grad_ref(), gb = b.grad_ref(), va = b.requires_grad() ? a.value() : BasicTensor<T>{},
       vb = a.requires_grad() ? b.value() : BasicTensor<T>{}](const BasicTensor<T>& dy) {
        if (ga) ga.add(detail::reduce_to(detail::broadcast_mul(dy, vb), ga.shape()));
        if (gb) gb.add(detail::reduce_to(detail::broadcast_mul(dy, va), gb.shape()));
      });
}

template <std::floating_point T>
BasicVar<T> div(const BasicVar<T>& a, const BasicVar<T>& b) {
  auto& tape = detail::common_tape("div", a, b);
  auto over = [](T u, T v) { return u / v; };
  auto y = detail::broadcast_apply("div", a.value(), b.value(), over);
  return tape.record(
      y, a.requires_grad() || b.requires_grad(),
      [ga = a.grad_ref(), gb = b.grad_ref(), over, y, vb = b.value()](const BasicTensor<T>& dy) {
        auto quotient = detail::broadcast_apply("div", dy, vb, over);
        if (ga) ga.add(detail::reduce_to(quotient, ga.shape()));
        if (gb)
          gb.add(detail::reduce_to(
              detail::broadcast_apply("div", quotient, y, [](T u, T v) { return -u * v; }),
              gb.shape()));
      });
}

template <std::floating_point T>
BasicVar<T> scale(const BasicVar<T>& x, std::type_identity_t<T> factor) {
  return x.tape().record(detail::scaled(x.value(), factor), x.requires_grad(),
                         [gx = x.grad_ref(), factor](const BasicTensor<T>& dy) {
                           gx.add(detail::scaled(dy, factor));
                         });
}

template <std::floating_point T>
BasicVar<T> add_scalar(const BasicVar<T>& x, std::type_identity_t<T> c) {
  return unary(
      x, [c](T v) { return v + c; }, [](T, T) { return T{1}; });
}

template <std::floating_point T>
BasicVar<T> exp(const BasicVar<T>& x) {
  return unary(
      x, [](T v) { return std::exp(v); }, [](T, T y) { return y; });
}

template <std::floating_point T>
BasicVar<T> log(const BasicVar<T>& x) {
  return unary(
      x, [](T v) { return std::log(v); }, [](T v, T) { return T{1} / v; });
}

template <std::floating_point T>
BasicVar<T> sqrt(const BasicVar<T>& x) {
  return unary(
      x, [](T v) { return std::sqrt(v); }, [](T, T y) { return T{0.5} / y; });
}

template <std::floating_point T>
BasicVar<T> square(const BasicVar<T>& x) {
  return unary(
      x, [](T v) { return v * v; }, [](T v, T) { return T{2} * v; });
}

template <std::floating_point T>
BasicVar<T> abs(const BasicVar<T>& x) {
  return unary(
      x, [](T v) { return std::abs(v); }, [](T v, T) { return T(v > 0) - T(v < 0); });
}

template <std::floating_point T>
BasicVar<T> sin(const BasicVar<T>& x) {
  return unary(
      x, [](T v) { return std::sin(v); }, [](T v, T) { return std::cos(v); });
}

template <std::floating_point T>
BasicVar<T> cos(const BasicVar<T>& x) {
  return unary(
      x, [](T v) { return std::cos(v); }, [](T v, T) { return -std::sin(v); });
}

template <std::floating_point T>
BasicVar<T> softplus(const BasicVar<T>& x) {
  return unary(
      x, [](T v) { return v > T{20} ? v : std::log1p(std::exp(v)); },
      [](T v, T) { return T{1} / (T{1} + std::exp(-v)); });
}

template <std::floating_point T>
BasicVar<T> clamp(const BasicVar<T>& x, std::type_identity_t<T> low, std::type_identity_t<T> high) {
  return unary(
      x, [=](T v) { return std::min(std::max(v, low), high); },
      [=](T v, T) { return v >= low && v <= high ? T{1} : T{0}; });
}

template <std::floating_point T>
BasicVar<T> activation(kernels::Activation kind, const BasicVar<T>& x) {
  auto y = BasicTensor<T>::empty(x.shape());
  kernels::activation_forward(kind, x.value().data(), y.data(), y.size());
  const auto kept = x.saved();
  auto result = x.tape().record(std::move(y), x.requires_grad(),
                                [gx = x.grad_ref(), kept, kind](const BasicTensor<T>& dy) {
                                  kernels::activation_backward(kind, kept.get().data(), dy.data(),
                                                               gx.accumulator(), dy.size());
                                });
  if (!x.requires_grad()) return result;
  return x.tape().recomputable(std::move(result), [kept, kind] {
    auto again = BasicTensor<T>::empty(kept.get().shape());
    kernels::activation_forward(kind, kept.get().data(), again.data(), again.size());
    return again;
  });
}

}  // namespace graft::inline v0_1

namespace graft::inline v0_1::detail {

/// f(a, b) with the elements of both values as they are kept: bf16 if both are, else T.
template <class T, class F>
void with_saved(const BasicSaved<T>& a, const BasicSaved<T>& b, F f) {
  if constexpr (std::is_same_v<T, float>)
    if (a.halves() != nullptr && b.halves() != nullptr) return f(a.halves(), b.halves());
  f(a.get().data(), b.get().data());
}

}  // namespace graft::inline v0_1::detail

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicVar<T> gated(kernels::Activation kind, const BasicVar<T>& gate, const BasicVar<T>& up) {
  auto& tape = detail::common_tape("gated", gate, up);
  if (gate.shape() != up.shape())
    throw ShapeError(
        concat("gated: shapes ", gate.shape().text(), " and ", up.shape().text(), " differ"));
  auto y = BasicTensor<T>::empty(gate.shape());
  kernels::swiglu_forward(kind, gate.value().data(), up.value().data(), y.data(), y.size());
  const auto kept_gate = gate.saved(), kept_up = up.saved();
  auto result = tape.record(
      std::move(y), gate.requires_grad() || up.requires_grad(),
      [gg = gate.grad_ref(), gu = up.grad_ref(), kept_gate, kept_up,
       kind](const BasicTensor<T>& dy) {
        // One gradient may lie where dy does.
        const auto over = dy.unique() ? dy : BasicTensor<T>::empty(dy.shape());
        const auto dgate = gg ? over : BasicTensor<T>{};
        const auto dup = !gu ? BasicTensor<T>{} : gg ? BasicTensor<T>::empty(dy.shape()) : over;
        detail::with_saved(kept_gate, kept_up, [&](const auto* g, const auto* u) {
          kernels::swiglu_backward(kind, g, u, dy.data(), dgate.data(), dup.data(), dy.size());
        });
        gg.add(dgate);
        gu.add(dup);
      });
  return tape.recomputable(std::move(result), [kept_gate, kept_up, kind, shape = gate.shape()] {
    auto again = BasicTensor<T>::empty(shape);
    detail::with_saved(kept_gate, kept_up, [&](const auto* g, const auto* u) {
      kernels::swiglu_forward(kind, g, u, again.data(), again.size());
    });
    return again;
  });
}

template <std::floating_point T>
BasicVar<T> dropout(const BasicVar<T>& x, double p) {
  if (p < 0 || p >= 1) throw ValueError(concat("dropout: probability ", p, ", expected [0, 1)"));
  if (p == 0 || !x.tape().training()) return x;
  const std::uint64_t key = x.tape().next_random_key();
  const auto threshold = static_cast<std::uint32_t>(p * 4294967296.0);
  const T keep = static_cast<T>(1 / (1 - p));
  auto apply = [=](const BasicTensor<T>& in) {
    auto out = BasicTensor<T>::empty(in.shape());
    detail::parallel_chunks(in.size(), [&](Index first, Index last) {
      for (Index i = first; i < last; ++i) {
        const std::uint64_t z = splitmix64(key + static_cast<std::uint64_t>(i) * kSplitMixStep);
        out[i] = static_cast<std::uint32_t>(z >> 32) < threshold ? T{0} : in[i] * keep;
      }
    });
    return out;
  };
  auto result =
      x.tape().record(apply(x.value()), x.requires_grad(),
                      [gx = x.grad_ref(), apply](const BasicTensor<T>& dy) { gx.add(apply(dy)); });
  return x.tape().recomputable(std::move(result),
                               [kept = x.saved(), apply] { return apply(kept.get()); });
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T)                                                               \
  template BasicTensor<T> detail::scaled(const BasicTensor<T>&, T);                        \
  template BasicVar<T> add(const BasicVar<T>&, const BasicVar<T>&);                        \
  template BasicVar<T> sub(const BasicVar<T>&, const BasicVar<T>&);                        \
  template BasicVar<T> mul(const BasicVar<T>&, const BasicVar<T>&);                        \
  template BasicVar<T> div(const BasicVar<T>&, const BasicVar<T>&);                        \
  template BasicVar<T> scale(const BasicVar<T>&, T);                                       \
  template BasicVar<T> add_scalar(const BasicVar<T>&, T);                                  \
  template BasicVar<T> exp(const BasicVar<T>&);                                            \
  template BasicVar<T> log(const BasicVar<T>&);                                            \
  template BasicVar<T> sqrt(const BasicVar<T>&);                                           \
  template BasicVar<T> square(const BasicVar<T>&);                                         \
  template BasicVar<T> abs(const BasicVar<T>&);                                            \
  template BasicVar<T> sin(const BasicVar<T>&);                                            \
  template BasicVar<T> cos(const BasicVar<T>&);                                            \
  template BasicVar<T> softplus(const BasicVar<T>&);                                       \
  template BasicVar<T> clamp(const BasicVar<T>&, T, T);                                    \
  template BasicVar<T> activation(kernels::Activation, const BasicVar<T>&);                \
  template BasicVar<T> gated(kernels::Activation, const BasicVar<T>&, const BasicVar<T>&); \
  template BasicVar<T> dropout(const BasicVar<T>&, double);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1
