#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "graft/autograd/ops/elementwise.hpp"
#include "graft/autograd/ops/reduce.hpp"
#include "graft/kernels/norm.hpp"
#include "graft/quant/half.hpp"
#include "graft/quant/uniform.hpp"

/// Functions whose forward pass is exact and whose backward pass reads codes of a few bits (S2A,
/// arXiv:2503.08154).
namespace graft::inline v0_1 {

struct DerivativeCodeOptions {
  Index bits = 4;
  Index group_size = 256;
  bool half_ranges = true;  ///< ends of a group's range in 16 bits, else 32
};

/// A tensor in codes of a few bits: groups of the flattened tensor (the last may be short), value =
/// lo + code (hi − lo) / (2^bits − 1), lo and hi the ends of the group as they are stored. The
/// error is at most (hi − lo) / (2 (2^bits − 1)), and what the ends lost. Bytes: bits / 8 an
/// element and 4 (or 8) a group.
template <std::floating_point T>
class DerivativeCodes {
 public:
  /// @throws ValueError for other bits than 1, 2, 4 or 8 or groups of less than one.
  DerivativeCodes(const BasicTensor<T>& g, const DerivativeCodeOptions& options)
      : options_(options), shape_(g.shape()) {
    if ((options.bits != 1 && options.bits != 2 && options.bits != 4 && options.bits != 8) ||
        options.group_size < 1)
      throw ValueError(
          concat("S2A: ", options.bits, " bits (1, 2, 4 or 8) in groups of ", options.group_size));
    const T top = static_cast<T>((1 << options.bits) - 1);
    std::vector<std::uint8_t> codes(static_cast<std::size_t>(g.size()));
    for (Index first = 0; first < g.size(); first += options.group_size) {
      const Index last = std::min(g.size(), first + options.group_size);
      const auto [least, most] = std::minmax_element(g.data() + first, g.data() + last);
      const T lo = put(*least), hi = put(*most);
      for (Index i = first; i < last && hi != lo; ++i)
        codes[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(
            std::clamp(std::nearbyint((g[i] - lo) / (hi - lo) * top), T{0}, top));
    }
    packed_ = options.bits == 8 ? std::move(codes) : quant::pack_codes(codes, options.bits);
  }

  BasicTensor<T> decode() const {
    auto g = BasicTensor<T>::empty(shape_);
    const T top = static_cast<T>((1 << options_.bits) - 1);
    const auto list = codes();
    for (Index i = 0; i < g.size(); ++i) {
      const Index k = i / options_.group_size;
      g[i] = low(k) + static_cast<T>(list[static_cast<std::size_t>(i)]) * (high(k) - low(k)) / top;
    }
    return g;
  }
  /// One a byte.
  std::vector<std::uint8_t> codes() const {
    return options_.bits == 8 ? packed_
                              : quant::unpack_codes(packed_, options_.bits, shape_.elements());
  }
  Index groups() const { return (std::ssize(halves_) + std::ssize(floats_)) / 2; }
  /// Ends of the range of a group.
  T low(Index group) const { return end(2 * group); }
  T high(Index group) const { return end(2 * group + 1); }
  Index bytes() const {
    return std::ssize(packed_) + 2 * std::ssize(halves_) + 4 * std::ssize(floats_);
  }

 private:
  /// Keeps an end; what is left of it.
  T put(T value) {
    if (!options_.half_ranges) {
      floats_.push_back(static_cast<float>(value));
      return static_cast<T>(floats_.back());
    }
    halves_.push_back(quant::f32_to_f16(static_cast<float>(value)));
    return static_cast<T>(quant::f16_to_f32(halves_.back()));
  }
  T end(Index i) const {
    const auto k = static_cast<std::size_t>(i);
    return static_cast<T>(options_.half_ranges ? quant::f16_to_f32(halves_[k]) : floats_[k]);
  }

  DerivativeCodeOptions options_;
  Shape shape_;
  std::vector<std::uint8_t> packed_;
  std::vector<std::uint16_t> halves_;
  std::vector<float> floats_;
};

namespace detail {

/// y recorded with codes of `kept`; `gradient(decoded, dy)` gives dx.
template <std::floating_point T, class Gradient>
BasicVar<T> record_coded(const BasicVar<T>& x, BasicTensor<T> y, const BasicTensor<T>& kept,
                         const DerivativeCodeOptions& options, Gradient gradient) {
  if (!x.requires_grad()) return x.tape().constant(std::move(y));
  auto codes = std::make_shared<const DerivativeCodes<T>>(kept, options);
  return x.tape().record(std::move(y), true,
                         [codes = std::move(codes), gx = x.grad_ref(), gradient](
                             const BasicTensor<T>& dy) { gx.add(gradient(codes->decode(), dy)); });
}

}  // namespace detail

/// φ'(x) for an activation.
template <std::floating_point T>
BasicTensor<T> activation_derivative(kernels::Activation kind, const BasicTensor<T>& x) {
  auto g = BasicTensor<T>::zeros(x.shape());
  kernels::activation_backward(kind, x.data(), BasicTensor<T>::ones(x.shape()).data(), g.data(),
                               g.size());
  return g;
}

/// y = φ(x), dx = dy ⊙ codes of φ'(x): x is not kept. The derivative of ReLU is 0 or 1, which one
/// bit holds exactly.
template <std::floating_point T>
BasicVar<T> coded_activation(kernels::Activation kind, const BasicVar<T>& x,
                             const DerivativeCodeOptions& options = {}) {
  auto y = BasicTensor<T>::empty(x.shape());
  kernels::activation_forward(kind, x.value().data(), y.data(), y.size());
  return detail::record_coded(
      x, std::move(y), x.requires_grad() ? activation_derivative(kind, x.value()) : x.value(),
      options, [](const BasicTensor<T>& g, const BasicTensor<T>& dy) {
        auto dx = BasicTensor<T>::empty(g.shape());
        kernels::mul(g.data(), dy.data(), dx.data(), dx.size());
        return dx;
      });
}

/// p = softmax(x) along the last axis; dx = p̂ ⊙ (dy − Σ dy p̂) with p̂ the codes of p.
template <std::floating_point T>
BasicVar<T> coded_softmax(const BasicVar<T>& x, const DerivativeCodeOptions& options = {}) {
  auto y = BasicTensor<T>::empty(x.shape());
  kernels::softmax_forward(x.value().data(), y.data(), x.rows(), x.cols());
  return detail::record_coded(
      x, y, y, options, [](const BasicTensor<T>& p, const BasicTensor<T>& dy) {
        auto dx = BasicTensor<T>::zeros(p.shape());
        kernels::softmax_backward(p.data(), dy.data(), dx.data(), p.rows(), p.cols());
        return dx;
      });
}

/// y = x̂ ⊙ weight + bias, x̂ = (x − mean) rstd along the last axis, weight and bias frozen; dx =
/// rstd (u − mean(u) − x̂ mean(u ⊙ x̂)), u = dy ⊙ weight, x̂ from codes and rstd = 1 / √(var + eps)
/// exact.
template <std::floating_point T>
BasicVar<T> coded_layer_norm(const BasicVar<T>& x, const BasicTensor<T>& weight,
                             const BasicTensor<T>& bias, std::type_identity_t<T> eps,
                             const DerivativeCodeOptions& options = {}) {
  const Index n = x.cols(), rows = x.rows();
  if (weight.size() != n || bias.size() != n)
    throw ShapeError(
        concat("coded_layer_norm: weight and bias do not have the ", n, " elements of a row"));
  auto y = BasicTensor<T>::empty(x.shape()), mean = BasicTensor<T>::empty({rows}),
       rstd = BasicTensor<T>::empty({rows});
  kernels::layer_norm_forward(x.value().data(), rows, n, n, weight.data(), bias.data(), eps,
                              y.data(), n, mean.data(), rstd.data());
  auto normal = BasicTensor<T>::empty(x.shape());
  for (Index r = 0; r < rows; ++r)
    for (Index j = 0; j < n; ++j) normal[r * n + j] = (x.value()[r * n + j] - mean[r]) * rstd[r];
  return detail::record_coded(
      x, std::move(y), normal, options,
      [weight, rstd, rows, n](const BasicTensor<T>& h, const BasicTensor<T>& dy) {
        auto dx = BasicTensor<T>::empty(h.shape());
        for (Index r = 0; r < rows; ++r) {
          T sum = 0, product = 0;
          for (Index j = 0; j < n; ++j) {
            const T u = dy[r * n + j] * weight[j];
            sum += u;
            product += u * h[r * n + j];
          }
          for (Index j = 0; j < n; ++j)
            dx[r * n + j] = rstd[r] * (dy[r * n + j] * weight[j] - sum / static_cast<T>(n) -
                                       h[r * n + j] * product / static_cast<T>(n));
        }
        return dx;
      });
}

}  // namespace graft::inline v0_1
