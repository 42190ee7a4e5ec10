#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/autograd/ops/linalg.hpp"
#include "graft/autograd/ops/loss.hpp"
#include "graft/autograd/ops/matmul.hpp"
#include "graft/autograd/ops/reduce.hpp"
#include "graft/autograd/ops/shape.hpp"

namespace graft::inline v0_1 {

struct PerkConfig {
  Index inner_steps = 4;  ///< N
  Index truncated = 2;    ///< T_u: first steps whose gradients are constants
  std::vector<double> inner_betas = {0.9, 0.95};
  double inner_eps = 1e-8;
  double inner_lr = 5e-5;    ///< start of all learning rates
  Index chunk_tokens = 256;  ///< of a context (`context_chunks`)

  static constexpr const char* kPeftType = "PERK";

  template <class Visitor>
  void fields(Visitor& v) {
    v("inner_steps", inner_steps);
    v("truncated", truncated);
    v("inner_betas", inner_betas);
    v("inner_eps", inner_eps);
    v("inner_lr", inner_lr);
    v("chunk_tokens", chunk_tokens);
  }
  /// @throws ValueError for what no inner loop can be made with.
  void validate() const {
    const auto beta = [](double b) { return b >= 0 && b < 1; };
    if (inner_steps < 1 || truncated < 0 || chunk_tokens < 1 || !(inner_eps > 0))
      throw ValueError(concat("PERK: inner_steps ", inner_steps, ", truncated ", truncated,
                              ", chunk_tokens ", chunk_tokens, ", inner_eps ", inner_eps));
    if (inner_betas.size() != 2 || !beta(inner_betas[0]) || !beta(inner_betas[1]))
      throw ValueError("PERK: inner_betas, expected two numbers in [0, 1)");
  }
};

/// First token and number of tokens of the parts of a context, the rows of a batch.
inline std::vector<std::pair<Index, Index>> context_chunks(Index tokens, Index chunk) {
  if (tokens < 0 || chunk < 1)
    throw ValueError(concat("context_chunks: ", tokens, " tokens in chunks of ", chunk));
  std::vector<std::pair<Index, Index>> chunks;
  for (Index first = 0; first < tokens; first += chunk)
    chunks.emplace_back(first, std::min(chunk, tokens - first));
  return chunks;
}

/// Weights of tokens for the inner loss: w = softplus₃(w₂ GELU(w₁ h + b₁) + b₂), softplus₃(x) =
/// log(1 + e^3x) / 3, of hidden states h [tokens, d]; [tokens, 1]. w₁: [m, d], trained: m d + 2 m +
/// 1. The last layer starts at zero, so w = log(2) / 3 for every token.
template <std::floating_point T>
class BasicTokenWeighting {
 public:
  using Scalar = T;

  BasicTokenWeighting(Index width, InitContext<T>& context, Index hidden = 128)
      : w1_(BasicTensor<T>::zeros({hidden, width})),
        b1_(BasicTensor<T>::zeros({hidden})),
        w2_(BasicTensor<T>::zeros({1, hidden})),
        b2_(BasicTensor<T>::zeros({1})) {
    if (context.loading) return;
    w1_.assign(detail::kaiming_uniform_tensor<T>(context.generator, {hidden, width}, width));
    b1_.assign(detail::kaiming_uniform_tensor<T>(context.generator, {hidden}, width));
  }
  BasicVar<T> operator()(const BasicVar<T>& h) const {
    auto& tape = h.tape();
    const auto layer = [&](const BasicVar<T>& x, const BasicParameter<T>& w,
                           const BasicParameter<T>& b) {
      return add(matmul(x, tape.parameter(w), Transpose::no, Transpose::yes), tape.parameter(b));
    };
    const auto s = layer(gelu(layer(h, w1_, b1_)), w2_, b2_);
    return scale(softplus(scale(s, T{3})), T{1} / T{3});
  }
  /// w₁, b₁, w₂, b₂.
  std::vector<BasicParameter<T>> parameters() const { return {w1_, b1_, w2_, b2_}; }

 private:
  BasicParameter<T> w1_, b1_, w2_, b2_;
};

using TokenWeighting = BasicTokenWeighting<float>;

/// Mean of w_t · cross-entropy_t over the tokens whose label is not -100, with gradients of both;
/// logits: [tokens, classes], weights: one a token. Labels are those of the next tokens.
template <std::floating_point T>
BasicVar<T> weighted_cross_entropy(const BasicVar<T>& logits, const BasicVar<T>& weights,
                                   std::span<const std::int64_t> labels) {
  const Index rows = logits.rows(), classes = logits.cols();
  const Index counted = detail::count_labels("weighted_cross_entropy", labels, rows, classes);
  if (weights.size() != rows)
    throw ShapeError(
        concat("weighted_cross_entropy: weights ", weights.shape().text(), " for ", rows, " rows"));
  std::vector<Index> at;
  auto share = BasicTensor<T>::zeros({rows, 1});
  for (Index r = 0; r < rows; ++r) {
    const auto label = labels[static_cast<std::size_t>(r)];
    at.push_back(r * classes + static_cast<Index>(std::max<std::int64_t>(0, label)));
    if (label != kIgnoredLabel) share[r] = T{1} / static_cast<T>(std::max<Index>(1, counted));
  }
  const auto flat = reshape(logits, {rows, classes});
  const auto losses = sub(log_sum_exp(flat), take(flat, std::move(at), {rows, 1}));
  return sum(mul(mul(losses, reshape(weights, {rows, 1})), logits.tape().constant(share)));
}

/// A memory of a long context in the parameters φ of an adapter: a few steps on the context from a
/// learned start, then the question is answered without it.
///
///     g_i = ∇ L_context(φ_i),  φ_{i+1} = φ_i − η_{p,i} m̂_i / (√v̂_i + ε),  i < N   (Adam, no decay)
///     outer: gradients of L_query(φ_N) for φ_0, every η_{p,i}, and what else the losses read
///
/// The losses are functions of a tape that read φ (and a weighting network, `others`) as
/// parameters. Gradients g_i of the first T_u steps count as constants; φ and η stay differentiable
/// there. T_u = N is first-order MAML, T_u = 0 the whole derivative. Trained beside φ: N rates a
/// tensor (the published code has N + 1, of which the last is not used). The derivative of a step
/// is exact; the product of the Hessian of L_context with a vector is a central difference of its
/// gradients, good to about ten digits in double precision and three in float. Memory: N + 1 copies
/// of φ and of g; a differentiated step costs two more gradients of L_context. Source: Chen et al.
/// 2025, arXiv:2507.06415.
template <std::floating_point T>
class BasicPerk {
 public:
  using Values = std::vector<BasicTensor<T>>;

  /// @throws ValueError for a setting outside of its range.
  explicit BasicPerk(std::vector<BasicParameter<T>> parameters, PerkConfig config = {},
                     std::vector<BasicParameter<T>> others = {})
      : parameters_(std::move(parameters)), others_(std::move(others)), config_(std::move(config)) {
    config_.validate();
    for (std::size_t p = 0; p < parameters_.size(); ++p)
      rates_.emplace_back(
          BasicTensor<T>::full({config_.inner_steps}, static_cast<T>(config_.inner_lr)));
  }
  /// η of each parameter, [inner_steps].
  const std::vector<BasicParameter<T>>& rates() const { return rates_; }
  const PerkConfig& config() const { return config_; }

  /// The inner loop at test time: φ is φ_N afterwards. Returns φ_0, to be put back (`restore`)
  /// before the next context. Gradients are not touched.
  template <class Loss>
  Values adapt(Loss&& context) const {
    const Kept kept(*this);
    auto path = inner(context);
    return std::move(path.front().start);
  }
  void restore(const Values& start) const {
    for (std::size_t p = 0; p < parameters_.size(); ++p) copy(start.at(p), parameters_[p]);
  }
  /// L_query(φ_N); adds its gradients to those of φ (meant for φ_0), `rates()` and the others. φ is
  /// φ_0 afterwards.
  template <class Context, class Query>
  T outer(Context&& context, Query&& query) const {
    Values dphi;
    Values dothers(others_.size());
    T loss = 0;
    std::vector<Values> drates;
    {
      const Kept kept(*this);
      const auto path = inner(context);
      auto found = gradient(query);
      loss = found.loss;
      dphi = std::move(found.of_parameters);
      add_to(dothers, found.of_others);
      drates.resize(path.size());
      Values dm = zeros(), dv = zeros();
      for (std::size_t i = path.size(); i-- > 0;) {
        auto dg = zeros();
        drates[i] = step_back(path[i], i, dphi, dm, dv, dg);
        if (static_cast<Index>(i) < config_.truncated) continue;
        restore(path[i].start);
        const auto second = along(context, dg);
        add_to(dphi, second.of_parameters);
        add_to(dothers, second.of_others);
      }
      restore(path.front().start);
    }
    for (std::size_t p = 0; p < parameters_.size(); ++p) {
      add_to(parameters_[p], dphi[p]);
      auto of_rates = BasicTensor<T>::zeros(rates_[p].shape());
      for (std::size_t i = 0; i < drates.size(); ++i)
        of_rates[static_cast<Index>(i)] = drates[i][p].item();
      add_to(rates_[p], of_rates);
    }
    for (std::size_t k = 0; k < others_.size(); ++k)
      if (dothers[k]) add_to(others_[k], dothers[k]);
    return loss;
  }

 private:
  struct Found {
    T loss = 0;
    Values of_parameters, of_others;
  };
  struct Step {
    Values start, g, m, v;  // φ_i, and g_i, m_i, v_i
  };
  /// Sets gradients aside, and brings them back.
  struct Kept {
    explicit Kept(const BasicPerk& o) : owner(&o) {
      for (const auto* list : {&o.parameters_, &o.others_})
        for (const auto& p : *list) gradients.push_back(std::exchange(p.mutable_grad(), {}));
    }
    Kept(const Kept&) = delete;
    Kept& operator=(const Kept&) = delete;
    ~Kept() {
      std::size_t k = 0;
      for (const auto* list : {&owner->parameters_, &owner->others_})
        for (const auto& p : *list) p.mutable_grad() = std::move(gradients[k++]);
    }
    const BasicPerk* owner;
    Values gradients;
  };

  static void copy(const BasicTensor<T>& from, const BasicParameter<T>& to) {
    if (from.size() != to.size())
      throw ShapeError(concat("PERK: values ", from.shape().text(), " for ", to.shape().text()));
    std::copy_n(from.data(), from.size(), to.value().data());
  }
  static void add_to(BasicTensor<T>& sum, const BasicTensor<T>& part) {
    if (!part) return;
    if (!sum) sum = BasicTensor<T>::zeros(part.shape());
    for (Index j = 0; j < sum.size(); ++j) sum[j] += part[j];
  }
  static void add_to(Values& sum, const Values& part) {
    for (std::size_t k = 0; k < sum.size(); ++k) add_to(sum[k], part[k]);
  }
  static void add_to(const BasicParameter<T>& p, const BasicTensor<T>& part) {
    auto sum = p.grad() ? p.grad().clone() : BasicTensor<T>{};
    add_to(sum, part);
    p.mutable_grad() = std::move(sum);
  }
  Values zeros() const {
    Values list;
    for (const auto& p : parameters_) list.push_back(BasicTensor<T>::zeros(p.shape()));
    return list;
  }
  /// Loss and gradients at the parameters as they are.
  template <class Loss>
  Found gradient(Loss&& loss) const {
    Found found;
    {
      BasicTape<T> tape;
      const BasicVar<T> value = loss(tape);
      found.loss = value.item();
      tape.backward(value);
    }
    for (const auto& p : parameters_) {
      auto g = std::exchange(p.mutable_grad(), {});
      found.of_parameters.push_back(g ? g.clone() : BasicTensor<T>::zeros(p.shape()));
    }
    for (const auto& p : others_) found.of_others.push_back(std::exchange(p.mutable_grad(), {}));
    return found;
  }
  /// Derivative of the gradients of `loss` along a direction of φ.
  template <class Loss>
  Found along(Loss&& loss, const Values& direction) const {
    double size = 0, reach = 1;
    for (std::size_t p = 0; p < direction.size(); ++p)
      for (Index j = 0; j < direction[p].size(); ++j) {
        size = std::max(size, std::abs(static_cast<double>(direction[p][j])));
        reach = std::max(reach, std::abs(static_cast<double>(parameters_[p].value()[j])));
      }
    Found result;
    result.of_parameters = zeros();
    result.of_others.resize(others_.size());
    if (size == 0) return result;
    Values start;
    for (const auto& p : parameters_) start.push_back(p.value().clone());
    const T h = static_cast<T>(std::cbrt(static_cast<double>(std::numeric_limits<T>::epsilon())) *
                               reach / size);
    for (const T sign : {T{1}, T{-1}}) {
      for (std::size_t p = 0; p < start.size(); ++p)
        for (Index j = 0; j < start[p].size(); ++j)
          parameters_[p].value()[j] = start[p][j] + sign * h * direction[p][j];
      auto found = gradient(loss);
      for (auto* list : {&found.of_parameters, &found.of_others})
        for (auto& g : *list)
          if (g) {
            g = g.clone();
            for (T& x : g) x *= sign / (2 * h);
          }
      add_to(result.of_parameters, found.of_parameters);
      add_to(result.of_others, found.of_others);
    }
    restore(start);
    return result;
  }
  double correction(std::size_t beta, std::size_t step) const {
    return 1 - std::pow(config_.inner_betas[beta], static_cast<double>(step + 1));
  }
  template <class Loss>
  std::vector<Step> inner(Loss&& context) const {
    std::vector<Step> path;
    const double b1 = config_.inner_betas[0], b2 = config_.inner_betas[1];
    Values m = zeros(), v = zeros();
    for (std::size_t i = 0; i < static_cast<std::size_t>(config_.inner_steps); ++i) {
      Step step;
      for (const auto& p : parameters_) step.start.push_back(p.value().clone());
      step.g = gradient(context).of_parameters;
      const double c1 = correction(0, i), c2 = correction(1, i);
      for (std::size_t p = 0; p < parameters_.size(); ++p) {
        const double rate = static_cast<double>(rates_[p].value()[static_cast<Index>(i)]);
        for (Index j = 0; j < m[p].size(); ++j) {
          const double g = static_cast<double>(step.g[p][j]);
          m[p][j] = static_cast<T>(b1 * static_cast<double>(m[p][j]) + (1 - b1) * g);
          v[p][j] = static_cast<T>(b2 * static_cast<double>(v[p][j]) + (1 - b2) * g * g);
          parameters_[p].value()[j] -=
              static_cast<T>(rate * static_cast<double>(m[p][j]) / c1 /
                             (std::sqrt(static_cast<double>(v[p][j]) / c2) + config_.inner_eps));
        }
        step.m.push_back(m[p].clone());
        step.v.push_back(v[p].clone());
      }
      path.push_back(std::move(step));
    }
    return path;
  }
  /// Through one step: from the gradients of φ_{i+1}, m_i, v_i to those of g_i and of m_{i−1},
  /// v_{i−1}; returns those of the rates. The gradient of φ_i without g_i is that of φ_{i+1}.
  Values step_back(const Step& step, std::size_t i, const Values& dphi, Values& dm, Values& dv,
                   Values& dg) const {
    const double b1 = config_.inner_betas[0], b2 = config_.inner_betas[1];
    const double c1 = correction(0, i), c2 = correction(1, i);
    Values drates;
    for (std::size_t p = 0; p < parameters_.size(); ++p) {
      const double rate = static_cast<double>(rates_[p].value()[static_cast<Index>(i)]);
      double drate = 0;
      for (Index j = 0; j < dphi[p].size(); ++j) {
        const double dy = static_cast<double>(dphi[p][j]), g = static_cast<double>(step.g[p][j]),
                     m = static_cast<double>(step.m[p][j]) / c1,
                     root = std::sqrt(static_cast<double>(step.v[p][j]) / c2),
                     below = root + config_.inner_eps;
        drate -= dy * m / below;
        const double dstep = -rate * dy;
        const double of_m = static_cast<double>(dm[p][j]) + dstep / below / c1;
        double of_v = static_cast<double>(dv[p][j]);
        if (root > 0) of_v -= dstep * m / (below * below) / (2 * root) / c2;
        dg[p][j] = static_cast<T>((1 - b1) * of_m + 2 * (1 - b2) * g * of_v);
        dm[p][j] = static_cast<T>(b1 * of_m);
        dv[p][j] = static_cast<T>(b2 * of_v);
      }
      drates.push_back(BasicTensor<T>::scalar(static_cast<T>(drate)));
    }
    return drates;
  }

  std::vector<BasicParameter<T>> parameters_, others_;
  PerkConfig config_;
  std::vector<BasicParameter<T>> rates_;
};

using Perk = BasicPerk<float>;

}  // namespace graft::inline v0_1
