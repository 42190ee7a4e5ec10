#pragma once

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/adapter.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/spectral/factors.hpp"
#include "graft/adapters/spectral/stiefel_adam.hpp"

namespace graft::inline v0_1 {

/// Configuration of SODA.
struct SODAConfig {
  std::vector<Index> sizes = {};  ///< of the three rotations, product in; empty: `soda_sizes(in)`
  double delta_init = 0;          ///< 1e-3 in the released code
  double learning_rate = 5e-5;    ///< of the rotations, which have an optimiser of their own
  std::vector<double> betas = {0.9, 0.99};
  double eps = 1e-5;
  std::string retraction = "euler";  ///< euler, cayley or exp
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "SODA";

  template <class Visitor>
  void fields(Visitor& v) {
    nullable_field(v, "sizes", sizes);
    v("delta_init", delta_init);
    v("lr", learning_rate);
    v("betas", betas);
    v("eps", eps);
    v("retraction", retraction);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for sizes that are not three, other numbers of betas than two, or an
  /// unknown retraction.
  void validate() const {
    if (!sizes.empty() && (sizes.size() != 3 || *std::min_element(sizes.begin(), sizes.end()) < 1))
      throw ValueError("SODA: sizes expected three numbers of at least 1");
    if (betas.size() != 2) throw ValueError("SODA: betas expected two numbers");
    StiefelAdam check(optimizer());
  }
  /// What the rotations are trained with.
  StiefelAdamConfig optimizer() const {
    return {.learning_rate = learning_rate,
            .beta1 = betas.at(0),
            .beta2 = betas.at(1),
            .eps = eps,
            .retraction = retraction};
  }
};

/// Sizes of SODA's rotations for a width: those of the paper where it has them, else the three
/// factors with the smallest sum of squares.
inline std::array<Index, 3> soda_sizes(Index in) {
  switch (in) {
    case 640:
      return {8, 8, 10};
    case 768:
      return {6, 8, 16};
    case 1280:
      return {4, 16, 20};
    case 2048:
      return {4, 8, 64};
    default:
      break;
  }
  std::array<Index, 3> best{1, 1, in};
  const auto cost = [](const std::array<Index, 3>& s) {
    return s[0] * s[0] + s[1] * s[1] + s[2] * s[2];
  };
  for (Index a = 1; a * a * a <= in; ++a) {
    if (in % a != 0) continue;
    const Index rest = in / a;
    for (Index b = a; b * b <= rest; ++b)
      if (rest % b == 0 && cost({a, b, rest / b}) < cost(best)) best = {a, b, rest / b};
  }
  return best;
}

/// SODA: y = ((x K V) ⊙ relu(σ + δ)) Uᵀ + b, W = U diag(σ) Vᵀ, K = Q₁ ⊗ Q₂ ⊗ Q₃ with small
/// orthogonal Q_i: singular values and a rotation of the input.
///
/// Q_i: [s_i, s_i], at first I, s₁ s₂ s₃ = in; δ: [q], q = min(in, out); trained: Σ s_i² + q. K
/// acts as three small products on x. The identity at the start with delta_init 0, up to rounding;
/// merges: U diag(relu(σ + δ)) Vᵀ Kᵀ. Singular values that δ takes below zero are cut to zero and
/// get no gradient.
///
/// The Q_i have an optimiser of their own, `StiefelAdam`, which a trainer runs through the method's
/// procedure in place of its optimiser; who trains by hand does the same. Source: Zhang et al. 2024
/// (arXiv:2405.21050). Deviations: δ begins at 0 and has min(in, out) numbers (the code: 1e-3, out
/// numbers). Tensors: soda_Q.0, soda_Q.1, soda_Q.2, soda_delta.
template <std::floating_point T>
class BasicSODA {
 public:
  using Scalar = T;
  using Config = SODAConfig;

  static MethodInfo info() {
    return {.peft_type = "SODA",
            .name = "SODA",
            .family = "spectral",
            .paper = "arXiv:2405.21050",
            .sites = "linear",
            .parameters = "; s1^2 + s2^2 + s3^2 + min(in, out), in = s1 s2 s3",
            .in_peft = false};
  }

  /// @throws ValueError if the product of the sizes is not the width.
  BasicSODA(const SODAConfig& config, const LinearSiteInfo<T>& site, InitContext<T>&) {
    config.validate();
    const Index in = site.in_features;
    const auto sizes = config.sizes.empty()
                           ? soda_sizes(in)
                           : std::array{config.sizes[0], config.sizes[1], config.sizes[2]};
    if (sizes[0] * sizes[1] * sizes[2] != in)
      throw ValueError(concat("SODA: sizes ", sizes[0], ", ", sizes[1], ", ", sizes[2], " at ",
                              site.path, ", expected the product ", in));
    for (std::size_t i = 0; i < 3; ++i)
      q_[i] = BasicParameter<T>(BasicTensor<T>::identity(sizes[i]));
    const auto d = detail::signed_svd(site.weight());
    u_ = d.u;
    v_ = d.v;
    sigma_ = d.s;
    delta_ =
        BasicParameter<T>(BasicTensor<T>::full(sigma_.shape(), static_cast<T>(config.delta_init)));
  }
  /// For a layer of one's own.
  template <Linear L>
  BasicSODA(const SODAConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicSODA(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto s = relu(add(tape.constant(sigma_), tape.parameter(delta_)));
    const auto h = mul(matmul(rotated(x), tape.constant(v_)), s);
    return detail::in_place_of_weight(base, x,
                                      matmul(h, tape.constant(u_), Transpose::no, Transpose::yes));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(4);
    for (std::size_t i = 0; i < 3; ++i) {
      list[i].name = concat("soda_Q.", i);
      list[i].parameter = q_[i];
    }
    list[3].name = "soda_delta";
    list[3].parameter = delta_;
    return list;
  }
  const std::array<BasicParameter<T>, 3>& rotations() const { return q_; }

 private:
  /// x K: each axis of x as [s₁, s₂, s₃] times its Q.
  BasicVar<T> rotated(const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const Index rows = x.rows(), a = q_[0].shape()[0], b = q_[1].shape()[0], c = q_[2].shape()[0];
    auto h = matmul(reshape(x, {rows * a * b, c}), tape.parameter(q_[2]));
    h = permute(reshape(h, {rows * a, b, c}), {0, 2, 1});  // [rows a, c, b]
    h = matmul(reshape(h, {rows * a * c, b}), tape.parameter(q_[1]));
    h = permute(reshape(h, {rows, a, c * b}), {0, 2, 1});  // [rows, c b, a]
    h = matmul(reshape(h, {rows * c * b, a}), tape.parameter(q_[0]));
    return reshape(permute(reshape(h, {rows, c, b, a}), {0, 3, 2, 1}), x.shape());
  }

  std::array<BasicParameter<T>, 3> q_;
  BasicParameter<T> delta_;
  BasicTensor<T> u_, v_, sigma_;
};

/// Keeps SODA's rotations from the optimiser of the others and moves them by `StiefelAdam`.
template <std::floating_point T>
class SODAProcedure final : public Procedure<T> {
 public:
  SODAProcedure(const SODAConfig& config, const std::vector<PlacedPart<T>>& parts) {
    for (const auto& placed : parts)
      if (auto* method = method_of<BasicSODA<T>>(placed.part.get()))
        for (const auto& q : method->rotations())
          rotations_.push_back({q, {}, StiefelAdam(config.optimizer())});
  }
  void after_backward(const StepInfo&) override {
    for (auto& r : rotations_) r.gradient = std::exchange(r.q.mutable_grad(), BasicTensor<T>{});
  }
  void after_step(const StepInfo&) override {
    for (auto& r : rotations_) {
      if (!r.gradient) continue;
      r.q.assign(r.optimizer.step(r.q.value(), r.gradient));
      r.gradient = {};
    }
  }
  std::map<std::string, std::vector<double>> state() const override {
    detail::ProcedureState all;
    for (std::size_t i = 0; i < rotations_.size(); ++i)
      rotations_[i].optimizer.keep(all, std::to_string(i));
    return all;
  }
  void set_state(const std::map<std::string, std::vector<double>>& all) override {
    for (std::size_t i = 0; i < rotations_.size(); ++i)
      rotations_[i].optimizer.restore(all, std::to_string(i), rotations_[i].q.shape());
  }

 private:
  struct Rotation {
    BasicParameter<T> q;
    BasicTensor<T> gradient;
    StiefelAdam optimizer;
  };
  std::vector<Rotation> rotations_;
};

template <std::floating_point T>
struct SODAMethod : LinearMethod<BasicSODA<T>> {
  static std::unique_ptr<Procedure<T>> procedure(const SODAConfig& config,
                                                 const std::vector<PlacedPart<T>>& parts) {
    return std::make_unique<SODAProcedure<T>>(config, parts);
  }
};

using SODA = BasicSODA<float>;

}  // namespace graft::inline v0_1
