#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/adapted.hpp"
#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"
#include "graft/autograd/low_rank_term.hpp"

namespace graft::inline v0_1 {

/// Configuration of Poly; fields as in PEFT's PolyConfig.
struct PolyConfig {
  Index rank = 8;
  TargetModules target_modules = {};
  bool init_weights = true;  ///< B = 0; false: both factors random
  std::string type = "poly";
  Index tasks = 1;
  Index skills = 4;
  Index splits = 1;
  Selection select = {};

  static constexpr const char* kPeftType = "POLY";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("target_modules", target_modules);
    v("init_weights", init_weights);
    v("poly_type", type);
    v("n_tasks", tasks);
    v("n_skills", skills);
    v("n_splits", splits);
    select.fields(v, {.layers = false, .rank_pattern = false, .alpha_pattern = false});
  }
  /// @throws ValueError for a count below one or another type.
  void validate() const {
    if (rank < 1 || tasks < 1 || skills < 1 || splits < 1)
      throw ValueError(concat("Poly: r ", rank, ", n_tasks ", tasks, ", n_skills ", skills,
                              ", n_splits ", splits, ", expected at least 1"));
    if (type != "poly") throw ValueError(concat("Poly: poly_type '", type, "', expected poly"));
  }
};

/// Poly (one split) and MHR (several): y = base(x) + (x A_t) B_t / rank, with the factors of the
/// row's task t mixed from K skills, split by split.
///
/// A: [S, K, in / S, rank], B: [S, K, rank, out / S], logits Z: [tasks, S K]; trained: K rank (in +
/// out) + tasks S K. Mixture of split s: w = z / (Σ_k z + 10⁻¹²) with z = σ(Z_t), while training
/// z = σ(Z_t + ln u − ln(1 − u)), u uniform. The identity at the start (B = 0). Tasks come with the
/// batch (ForwardContext::task_ids), one a row; one task alone needs none. Does not merge: the
/// weight depends on the task; what one task sees does (`task_skill`). A new task:
/// `mean_task_logits` (MHR-z), `mean_skill` (MHR-µ). Source: Ponti et al. 2022 (arXiv:2202.13914),
/// eq. 2 to 4; splits: Caccia et al. 2022 (arXiv:2211.03831). Tensors: poly_lora_A, poly_lora_B,
/// poly_router.module_logits.
template <std::floating_point T>
class BasicPoly {
 public:
  using Scalar = T;
  using Config = PolyConfig;

  /// @throws ValueError for a convolution, or splits that do not divide in and out.
  BasicPoly(const PolyConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : config_(config), in_(site.in_features), out_(site.out_features) {
    config.validate();
    if (!site.conv.kernel.empty() || !site.expert.parameter.empty())
      throw ValueError(concat("Poly: ", site.path, ", expected a plain linear layer"));
    const Index s = config.splits, k = config.skills, r = config.rank;
    if (in_ % s != 0 || out_ % s != 0)
      throw ValueError(concat("Poly: n_splits ", s, " for the layer ", site.path, " of ", in_,
                              " and ", out_, " features, expected a divisor of both"));
    auto a = BasicTensor<T>::zeros({s, k, in_ / s, r}),
         b = BasicTensor<T>::zeros({s, k, r, out_ / s}),
         z = BasicTensor<T>::zeros({config.tasks, s * k});
    if (!context.loading) {
      auto& rng = context.generator;
      const auto draw = [&](BasicTensor<T>& to, Index width, Index inputs) {
        for (Index skill = 0; skill < k; ++skill)
          for (Index split = 0; split < s; ++split) {
            const auto block = detail::kaiming_uniform_tensor<T>(rng, Shape{width, inputs}, inputs);
            T* at = to.data() + (split * k + skill) * width * inputs;
            for (Index o = 0; o < width; ++o)
              for (Index i = 0; i < inputs; ++i) at[i * width + o] = block(o, i);
          }
      };
      draw(a, r, in_ / s);
      if (!config.init_weights) draw(b, out_ / s, r);
      rng.uniform(z.data(), z.size(), -1e-3, 1e-3);
    }
    a_ = BasicParameter<T>(a);
    b_ = BasicParameter<T>(b);
    logits_ = BasicParameter<T>(z);
  }

  /// Mixing weights of a batch, [batch, splits, skills].
  BasicVar<T> mixture(BasicTape<T>& tape, const std::vector<std::int64_t>& tasks) const {
    const Index n = static_cast<Index>(tasks.size());
    for (const auto t : tasks)
      if (t < 0 || t >= config_.tasks)
        throw ValueError(concat("Poly: task ", t, " of ", config_.tasks));
    auto z =
        reshape(gather_rows(tape.parameter(logits_), tasks), {n, config_.splits, config_.skills});
    if (tape.training()) {
      auto noise = uniform_ ? uniform_.clone() : BasicTensor<T>::empty(z.shape());
      if (!uniform_) {
        TorchGenerator generator(tape.next_random_key());
        generator.uniform(noise.data(), noise.size(), 0, 1);
      }
      const T least = std::numeric_limits<T>::epsilon();
      for (T& u : noise) {
        const T v = std::clamp(u, least, 1 - least);
        u = std::log(v) - std::log1p(-v);
      }
      z = add(z, tape.constant(noise));
    }
    z = sigmoid(z);
    return div(z, add_scalar(sum_axis(z, -1, true), static_cast<T>(1e-12)));
  }
  /// Uniform numbers [batch, splits, skills] for the next passes in training, in place of random
  /// ones; an empty tensor: random ones again.
  void set_uniform(BasicTensor<T> uniform) { uniform_ = std::move(uniform); }

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto* context = tape.template context<ForwardContext>();
    auto ids = context == nullptr ? std::vector<std::int64_t>() : context->task_ids;
    if (ids.empty() && config_.tasks == 1) {
      const Index batch = context == nullptr ? 1 : std::max<Index>(context->batch, 1);
      ids.assign(x.rows() % batch == 0 ? static_cast<std::size_t>(batch) : 1, 0);
    }
    const Index n = static_cast<Index>(ids.size());
    if (n == 0)
      throw ValueError(concat("Poly: n_tasks ", config_.tasks,
                              ", and the batch has no task ids (task_ids), one for each row"));
    if (x.rows() % n != 0)
      throw ValueError(concat("Poly: ", n, " task ids for the input ", x.shape().text(),
                              ", expected one for each row of the batch"));
    const Index s = config_.splits, k = config_.skills, r = config_.rank;
    const auto w = permute(mixture(tape, ids), {1, 0, 2});
    const auto mixed = [&](const BasicParameter<T>& p, Index elements) {
      return matmul(w, reshape(tape.parameter(p), {s, k, elements}));
    };
    const auto a = reshape(permute(reshape(mixed(a_, in_ / s * r), {s, n, in_ / s * r}), {1, 0, 2}),
                           {n, in_, r});
    const auto b =
        reshape(permute(reshape(mixed(b_, r * (out_ / s)), {s, n, r, out_ / s}), {1, 2, 0, 3}),
                {n, r, out_});
    const auto delta = matmul(matmul(reshape(x, {n, x.rows() / n, in_}), a), b);
    return add(linear(base, x),
               reshape(graft::scale(delta, T{1} / static_cast<T>(r)), x.shape().with_last(out_)));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(3);
    list[0].name = "poly_lora_A";
    list[0].parameter = a_;
    list[1].name = "poly_lora_B";
    list[1].parameter = b_;
    list[2].name = "poly_router.module_logits";
    list[2].parameter = logits_;
    list[2].group = "router";
    return list;
  }
  std::string merge_reason() const {
    return "Poly mixes its skills by task; a weight cannot hold that";
  }
  static MethodInfo info() {
    return {.peft_type = "POLY",
            .name = "Poly",
            .family = "mixtures",
            .paper = "arXiv:2202.13914",
            .sites = "linear",
            .parameters = "K r (in + out) + n_tasks n_splits K, K = n_skills",
            .mergeable = false};
  }

 private:
  PolyConfig config_;
  Index in_, out_;
  BasicParameter<T> a_, b_, logits_;
  BasicTensor<T> uniform_;
};

namespace detail {

/// Σ_k w_sk of the skills of a Poly, split by split, as one LoRA with scaling 1 / rank; weights:
/// [S · K].
template <std::floating_point T>
LowRankTerm<T> mixed_skills(const BasicTensor<T>& a, const BasicTensor<T>& b,
                            const std::vector<double>& weights) {
  if (a.rank() != 4 || b.rank() != 4 || a.dim(0) != b.dim(0) || a.dim(1) != b.dim(1) ||
      a.dim(3) != b.dim(2))
    throw ShapeError(concat("Poly: factors ", a.shape().text(), " and ", b.shape().text()));
  const Index s = a.dim(0), k = a.dim(1), in = a.dim(2), r = a.dim(3), out = b.dim(3);
  auto low = BasicTensor<T>::zeros({r, s * in}), high = BasicTensor<T>::zeros({s * out, r});
  for (Index split = 0; split < s; ++split)
    for (Index skill = 0; skill < k; ++skill) {
      const Index at = split * k + skill;
      const T share = static_cast<T>(weights[static_cast<std::size_t>(at)]);
      for (Index j = 0; j < r; ++j) {
        const T* from_a = a.data() + at * in * r;
        const T* from_b = b.data() + at * r * out;
        for (Index i = 0; i < in; ++i) low(j, split * in + i) += share * from_a[i * r + j];
        for (Index o = 0; o < out; ++o) high(split * out + o, j) += share * from_b[j * out + o];
      }
    }
  return {BasicParameter<T>(low), BasicParameter<T>(high), T{1} / static_cast<T>(r)};
}

}  // namespace detail

/// The skills of a Poly averaged into one LoRA, where a new task starts from (MHR-µ): the update
/// is scaling · B A with scaling = 1 / rank. a: [S, K, in / S, rank], b: [S, K, rank, out / S].
/// @throws ShapeError for factors that do not fit
template <std::floating_point T>
LowRankTerm<T> mean_skill(const BasicTensor<T>& a, const BasicTensor<T>& b) {
  const Index k = a.rank() == 4 ? a.dim(1) : 1, all = a.rank() == 4 ? a.dim(0) * k : 0;
  return detail::mixed_skills(
      a, b, std::vector<double>(static_cast<std::size_t>(all), 1 / static_cast<double>(k)));
}

/// What a Poly does to the rows of one task, as a LoRA: the skills with the weights of evaluation,
/// σ(Z_t) over their sum in each split. Exact, so it merges for this task. logits: [tasks, S K].
/// @throws ShapeError for tensors that do not fit, ValueError for a task that is not there
template <std::floating_point T>
LowRankTerm<T> task_skill(const BasicTensor<T>& a, const BasicTensor<T>& b,
                          const BasicTensor<T>& logits, Index task) {
  if (a.rank() != 4 || logits.rank() != 2 || logits.cols() != a.dim(0) * a.dim(1))
    throw ShapeError(
        concat("Poly: logits ", logits.shape().text(), " for factors ", a.shape().text()));
  if (task < 0 || task >= logits.rows())
    throw ValueError(concat("Poly: task ", task, " of ", logits.rows()));
  const Index k = a.dim(1);
  std::vector<double> weights;
  for (Index first = 0; first < logits.cols(); first += k) {
    double total = 1e-12;
    for (Index i = first; i < first + k; ++i) {
      weights.push_back(1 / (1 + std::exp(-static_cast<double>(logits(task, i)))));
      total += weights.back();
    }
    for (Index i = first; i < first + k; ++i) weights[static_cast<std::size_t>(i)] /= total;
  }
  return detail::mixed_skills(a, b, weights);
}

/// Logits that a new task starts from, [1, S K]: the mean over the tasks. For MHR-z these are all
/// that the new task trains (the optimiser's group "router"), the skills stay.
template <std::floating_point T>
BasicTensor<T> mean_task_logits(const BasicTensor<T>& logits) {
  if (logits.rank() != 2 || logits.rows() < 1)
    throw ShapeError(concat("Poly: logits ", logits.shape().text(), ", expected [tasks, S K]"));
  auto mean = BasicTensor<T>::zeros({1, logits.cols()});
  for (Index t = 0; t < logits.rows(); ++t)
    for (Index i = 0; i < logits.cols(); ++i)
      mean[i] += logits(t, i) / static_cast<T>(logits.rows());
  return mean;
}

using Poly = BasicPoly<float>;

}  // namespace graft::inline v0_1
