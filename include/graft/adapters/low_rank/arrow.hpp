#pragma once

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/low_rank/lora_factors.hpp"
#include "graft/adapters/part.hpp"
#include "graft/autograd/low_rank_term.hpp"
#include "graft/autograd/ops/topk_mixture.hpp"
#include "graft/tensor/decompositions.hpp"

namespace graft::inline v0_1 {

/// `arrow_config` of LoRA's configuration, names as in PEFT.
struct ArrowConfig {
  Index top_k = 3;  ///< experts a token; -1: all
  double temperature = 1;
  bool subtract_general = false;                ///< `use_gks`: general-knowledge subtraction
  std::vector<std::string> task_adapters = {};  ///< names of the experts
  std::vector<std::string> general_adapters = {};
  std::optional<Index> seed = {};  ///< of the start of the power iteration; empty: exact vectors

  template <class Visitor>
  void fields(Visitor& v) {
    v("top_k", top_k);
    v("router_temperature", temperature);
    v("use_gks", subtract_general);
    v("task_adapter_names", task_adapters);
    v("gks_adapter_names", general_adapters);
    v("rng_seed", seed);
  }
  void validate() const {
    if (top_k < 1 && top_k != -1)
      throw ValueError(concat("Arrow: top_k ", top_k, ", expected at least 1, or -1 for all"));
    if (!(temperature > 0))
      throw ValueError(concat("Arrow: router_temperature ", temperature, ", expected more than 0"));
  }
};

/// The input that B A amplifies most, of length one: the first right singular vector, from the
/// small core of both factors. With a seed, what 15 power iterations make of torch's random vector,
/// as in PEFT. Its sign has no meaning. a: [rank, in], b: [out, rank], result [in].
template <std::floating_point T>
BasicTensor<T> arrow_prototype(const BasicTensor<T>& a, const BasicTensor<T>& b,
                               std::optional<Index> seed = {}) {
  const Index r = a.rows(), in = a.cols();
  auto v = BasicTensor<T>::zeros({in});
  if (!seed) {
    auto at = BasicTensor<T>::empty({in, r});
    for (Index k = 0; k < r; ++k)
      for (Index i = 0; i < in; ++i) at(i, k) = a(k, i);
    const auto qa = qr(at), qb = qr(b);  // B A = Q_b (R_b R_aᵀ) Q_aᵀ
    const auto core = svd(detail::product(qb.r, qa.r, T{1}, false, true));
    for (Index i = 0; i < in; ++i)
      for (Index k = 0; k < qa.q.cols(); ++k) v[i] += qa.q(i, k) * core.v(k, 0);
    return v;
  }
  TorchGenerator generator(static_cast<std::uint64_t>(*seed));
  generator.normal(v.data(), in);
  const auto normalise = [&] {
    const T length = std::sqrt(kernels::dot(v.data(), v.data(), in)) + static_cast<T>(1e-8);
    for (T& e : v) e /= length;
  };
  normalise();
  const auto gram = detail::product(b, b, T{1}, true, false);
  for (int step = 0; step < 15; ++step) {
    const auto low = detail::product(gram, detail::product(a, v.reshape({in, 1})));
    v = detail::product(a, low, T{1}, true, false).reshape({in});
    normalise();
  }
  return v;
}

/// Arrow: y = base(x) + drop(Σ_e w_e s_e x A_eᵀ B_eᵀ) over the adapters of other tasks, w = softmax
/// of |x · v_e| / τ over the top_k largest, v_e the prototype of expert e.
///
/// Trained: nothing; the experts are those that the model has under `task_adapter_names`. With
/// general-knowledge subtraction, the means of A and B of the general adapters are taken from those
/// of the experts first; the experts themselves stay as they are (PEFT changes them). Gradients
/// reach x. Does not merge: the weight depends on the token. Source: Ostapenko et al. 2024
/// (arXiv:2405.11157), section 4; GenKnowSub (arXiv:2505.10939). Tensors: lora_A.weight and
/// lora_B.weight of the router itself, which PEFT keeps and nobody uses.
template <std::floating_point T>
class BasicArrow {
 public:
  using Scalar = T;
  using Config = LoRAConfig;

  BasicArrow(const LoRAConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : factors_("arrow_config", config, site, context),
        options_(nested_config<ArrowConfig>("arrow_config", config.arrow_config)) {
    factors_.a.set_trainable(false);
    factors_.b.set_trainable(false);
  }

  const ArrowConfig& options() const { return options_; }
  /// Sets the adapters that are mixed. @throws ValueError if there is none, or their ranks differ.
  void set_experts(const std::vector<LowRankTerm<T>>& tasks,
                   const std::vector<LowRankTerm<T>>& general) {
    if (tasks.empty()) throw ValueError("Arrow: no expert at a site of the router");
    if (options_.subtract_general && general.empty())
      throw ValueError("Arrow: use_gks without general adapters");
    const Index r = tasks[0].a.shape()[0], in = tasks[0].a.shape()[1], out = tasks[0].b.shape()[0];
    for (const auto* list : {&tasks, &general})
      for (const auto& term : *list)
        if (term.a.shape() != Shape{r, in} || term.b.shape() != Shape{out, r})
          throw ValueError(concat("Arrow: experts of shapes ", tasks[0].a.shape().text(), " and ",
                                  term.a.shape().text(), ", expected one rank"));
    experts_ = static_cast<Index>(tasks.size());
    a_ = BasicTensor<T>::empty({experts_ * r, in});
    b_ = BasicTensor<T>::empty({out, experts_ * r});
    prototypes_ = BasicTensor<T>::empty({experts_, in});
    spread_ = BasicTensor<T>::zeros({experts_, experts_ * r});
    for (Index e = 0; e < experts_; ++e) {
      const auto& task = tasks[static_cast<std::size_t>(e)];
      auto a = task.a.value().clone(), b = task.b.value().clone();
      if (options_.subtract_general)
        for (const auto& term : general) {
          const T share = T{-1} / static_cast<T>(general.size());
          kernels::axpy(share, term.a.value().data(), a.data(), a.size());
          kernels::axpy(share, term.b.value().data(), b.data(), b.size());
        }
      const auto v = arrow_prototype(a, b, options_.seed);
      std::copy_n(v.data(), in, prototypes_.data() + e * in);
      std::copy_n(a.data(), r * in, a_.data() + e * r * in);
      for (Index k = 0; k < r; ++k) {
        spread_(e, e * r + k) = task.scaling;
        for (Index o = 0; o < out; ++o) b_(o, e * r + k) = b(o, k);
      }
    }
  }
  /// Takes other prototypes than those of the experts, [experts, in].
  void set_prototypes(BasicTensor<T> prototypes) { prototypes_ = std::move(prototypes); }
  const BasicTensor<T>& prototypes() const { return prototypes_; }
  /// ‖B_e A_e v‖ for row e of `directions` [experts, in]: what expert e makes of a direction.
  double gain(Index e, const BasicTensor<T>& directions) const {
    const Index in = a_.cols(), width = b_.cols(), r = width / experts_;
    double total = 0;
    for (Index o = 0; o < b_.rows(); ++o) {
      double y = 0;
      for (Index k = e * r; k < (e + 1) * r; ++k)
        y += static_cast<double>(b_(o, k)) *
             static_cast<double>(kernels::dot(a_.data() + k * in, directions.data() + e * in, in));
      total += y * y;
    }
    return std::sqrt(total);
  }

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    if (experts_ == 0) throw ValueError("Arrow: the router has no experts");
    auto& tape = x.tape();
    const auto similarity =
        graft::scale(abs(matmul(x, tape.constant(prototypes_), Transpose::no, Transpose::yes)),
                     static_cast<T>(1 / options_.temperature));
    // The mixture of the rows of `spread`: weight times scaling for each of the expert's ranks.
    const Index count = options_.top_k < 0 ? experts_ : std::min(options_.top_k, experts_);
    const auto weights = topk_mixture(similarity, tape.constant(spread_), count);
    const auto h = mul(matmul(x, tape.constant(a_), Transpose::no, Transpose::yes), weights);
    const auto delta = matmul(h, tape.constant(b_), Transpose::no, Transpose::yes);
    return add(linear(base, x), graft::dropout(delta, factors_.dropout));
  }
  std::vector<AdapterTensor<T>> tensors() const { return factors_.tensors(); }
  std::string merge_reason() const {
    return "Arrow mixes its experts anew for every token; a weight cannot hold that";
  }

 private:
  LoRAFactors<T> factors_;
  ArrowConfig options_;
  Index experts_ = 0;
  BasicTensor<T> a_, b_;       ///< of all experts: [experts · rank, in], [out, experts · rank]
  BasicTensor<T> prototypes_;  ///< [experts, in]
  BasicTensor<T> spread_;      ///< [experts, experts · rank], the scaling of each in its columns
};

using Arrow = BasicArrow<float>;

}  // namespace graft::inline v0_1
