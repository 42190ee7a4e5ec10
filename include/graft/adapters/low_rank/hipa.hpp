#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>

#include "graft/adapters/low_rank/lora.hpp"
#include "graft/adapters/method.hpp"
#include "graft/autograd/ops/spectrum.hpp"

namespace graft::inline v0_1 {

/// Configuration of HiPA: that of LoRA, and of the loss.
struct HiPAConfig {
  Index rank = 8;
  double alpha = 8;
  double dropout = 0;
  double loss_weight = 1;  ///< of the high-frequency loss
  double radius = 0.25;    ///< frequencies above it are high; 1 is Nyquist's of an axis
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "HIPA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("lora_alpha", alpha);
    v("lora_dropout", dropout);
    v("loss_weight", loss_weight);
    v("radius", radius);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for a rank below one or a negative weight or radius.
  void validate() const {
    if (rank < 1) throw ValueError(concat("HiPA: r ", rank, ", expected at least 1"));
    if (!(loss_weight >= 0 && radius >= 0))
      throw ValueError(concat("HiPA: loss_weight ", loss_weight, " and radius ", radius,
                              ", expected at least 0"));
  }
};

namespace detail {

/// Frequency k of n in units of Nyquist's.
inline double share_of_nyquist(Index k, Index n) {
  return 2.0 * static_cast<double>(std::min(k, n - k)) / static_cast<double>(n);
}

/// Images [..., h, w] without their frequencies up to a radius. The mask is the same for ±u and ±v,
/// so that real and imaginary parts of a row's spectrum are filtered along the columns as they are.
template <std::floating_point T>
BasicTensor<T> without_low_frequencies(const BasicTensor<T>& x, double radius) {
  if (x.rank() < 2)
    throw ShapeError(concat("high_pass: ", x.shape().text(), ", expected [..., h, w]"));
  const Index h = x.dim(-2), w = x.dim(-1), images = x.size() / std::max<Index>(1, h * w);
  if (x.size() == 0) return x;
  auto z = spectrum_of(x.reshape({images * h, w}));  // [2 (w / 2 + 1), images · h]
  const Index across = w / 2 + 1, down = h / 2 + 1;
  auto re = BasicTensor<T>::empty({down, images}), im = BasicTensor<T>::empty({down, images});
  for (Index row = 0; row < 2 * across; ++row) {
    T* column = z.data() + row * images * h;
    const double v = share_of_nyquist(row % across, w);
    real_fft(column, h, images, h, re.data(), im.data(), images);
    for (Index k = 0; k < down; ++k) {
      const double u = share_of_nyquist(k, h);
      if (std::sqrt(u * u + v * v) > radius) continue;
      std::fill_n(re.data() + k * images, images, T{0});
      std::fill_n(im.data() + k * images, images, T{0});
    }
    inverse_real_fft(re.data(), im.data(), images, images, h, column, h);
  }
  return signal_of(z, w, x.shape());
}

}  // namespace detail

/// Re IDFT(M ⊙ DFT(x)) over the last two axes, M = 1 where √(u² + v²) > radius, u and v in units of
/// Nyquist's frequency of their axis. x: [..., h, w]. The filter is its own adjoint.
/// @throws ShapeError for fewer than two axes.
template <std::floating_point T>
BasicVar<T> high_pass(const BasicVar<T>& x, double radius) {
  return x.tape().record(detail::without_low_frequencies(x.value(), radius), x.requires_grad(),
                         [radius, gx = x.grad_ref()](const BasicTensor<T>& dy) {
                           gx.add(detail::without_low_frequencies(dy, radius));
                         });
}

/// √(gx² + gy² + 10⁻¹²) with the 3 × 3 Sobel kernels, no padding: [..., h, w] to
/// [..., h − 2, w − 2]. @throws ShapeError for images below 3 × 3.
template <std::floating_point T>
BasicVar<T> sobel_edges(const BasicVar<T>& x) {
  if (x.shape().rank() < 2 || x.dim(-2) < 3 || x.dim(-1) < 3)
    throw ShapeError(concat("sobel_edges: ", x.shape().text(), ", expected at least 3 x 3"));
  const Index h = x.dim(-2) - 2, w = x.dim(-1) - 2;
  const auto at = [&](Index i, Index j) { return slice(slice(x, -2, i, h), -1, j, w); };
  const auto down = add(sub(at(2, 0), at(0, 0)), sub(at(2, 2), at(0, 2)));
  const auto gy = add(down, scale(sub(at(2, 1), at(0, 1)), T{2}));
  const auto across = add(sub(at(0, 2), at(0, 0)), sub(at(2, 2), at(2, 0)));
  const auto gx = add(across, scale(sub(at(1, 2), at(1, 0)), T{2}));
  return sqrt(add_scalar(add(square(gx), square(gy)), static_cast<T>(1e-12)));
}

/// λ (mean |H(s) − H(t)| + mean |E(s) − E(t)|), H `high_pass` and E `sobel_edges`, of the student's
/// images and the teacher's; the perceptual distance beside it is the caller's.
template <std::floating_point T>
BasicVar<T> high_frequency_loss(const BasicVar<T>& student, const BasicVar<T>& teacher,
                                const HiPAConfig& config) {
  // H is linear.
  const auto fourier = mean(abs(high_pass(sub(student, teacher), config.radius)));
  const auto edges = mean(abs(sub(sobel_edges(student), sobel_edges(teacher))));
  return scale(add(fourier, edges), static_cast<T>(config.loss_weight));
}

/// HiPA: LoRA on the attention of a diffusion model that learns to make an image in one step, with
/// a loss on what one step leaves out, see `high_frequency_loss`.
///
/// Trained: r (in + out). The identity at the start; merges. Source: Zhang and Hooi 2023
/// (arXiv:2311.18158). Rank, weight, radius and norm are not in the paper's abstract and no code is
/// known; these are r = 8, λ = 1, ρ = 0.25, L1. Tensors: lora_A.weight, lora_B.weight.
template <std::floating_point T>
struct HiPAMethod {
  using Scalar = T;
  using Config = HiPAConfig;
  static MethodInfo info() {
    return {.peft_type = "HIPA",
            .name = "HiPA",
            .family = "low_rank",
            .paper = "arXiv:2311.18158",
            .sites = "linear, conv",
            .parameters = "r (in + out)",
            .in_peft = false};
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    config.validate();
    LoRAConfig lora;
    lora.rank = config.rank;
    lora.alpha = config.alpha;
    lora.dropout = config.dropout;
    return linear_part(BasicLoRA<T>(lora, site, context));
  }
};

}  // namespace graft::inline v0_1
