#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/adapted.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/mixtures/router.hpp"
#include "graft/adapters/named_activation.hpp"

namespace graft::inline v0_1 {

/// Configuration of S'MoRE. Lists have an entry for each level, the leaves first.
struct SMoREConfig {
  std::vector<Index> rank = {8, 8};
  std::vector<Index> num_experts = {4, 4};
  std::vector<Index> fanout = {2, 2};  ///< children that a node picks at its level
  std::vector<double> alpha = {};      ///< scale of a level: alpha / r; empty: 1
  Index gate_dim = 32;
  Index down_proj_dim = 32;
  std::string gate_type = "noisy_topk";       ///< or switch
  std::string act_fn = "tanh";                ///< of the sum of a residual and its children
  double balance_loss_weight = 0.01;          ///< averaged over the adapted layers
  std::string init_weights = "w_final_zero";  ///< or b_zero, normal
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "SMORE";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("num_experts", num_experts);
    v("fanout", fanout);
    nullable_field(v, "lora_alpha", alpha);
    v("gate_dim", gate_dim);
    v("down_proj_dim", down_proj_dim);
    v("gate_type", gate_type);
    v("act_fn", act_fn);
    v("balance_loss_weight", balance_loss_weight);
    v("init_weights", init_weights);
    v("target_modules", target_modules);
    select.fields(v);
  }
  Index levels() const { return std::ssize(rank); }
  /// @throws ValueError for lists of different lengths, counts that make no sense or unknown words.
  void validate() const {
    if (rank.empty() || num_experts.size() != rank.size() || fanout.size() != rank.size() ||
        (!alpha.empty() && alpha.size() != rank.size()))
      throw ValueError(concat("S'MoRE: r, num_experts, fanout and lora_alpha of ", rank.size(),
                              ", ", num_experts.size(), ", ", fanout.size(), " and ", alpha.size(),
                              " levels"));
    for (std::size_t l = 0; l < rank.size(); ++l)
      if (rank[l] < 1 || fanout[l] < 1 || fanout[l] > num_experts[l])
        throw ValueError(concat("S'MoRE: level ", l, " of r ", rank[l], ", fanout ", fanout[l],
                                " of num_experts ", num_experts[l]));
    if (gate_dim < 1 || down_proj_dim < 1)
      throw ValueError(concat("S'MoRE: gate_dim ", gate_dim, ", down_proj_dim ", down_proj_dim,
                              ", expected at least 1"));
    if (gate_type != "noisy_topk" && gate_type != "switch")
      throw ValueError(
          concat("S'MoRE: gate_type '", gate_type, "', expected noisy_topk or switch"));
    if (init_weights != "w_final_zero" && init_weights != "b_zero" && init_weights != "normal")
      throw ValueError(concat("S'MoRE: init_weights '", init_weights,
                              "', expected w_final_zero, b_zero or normal"));
    detail::require_activation("S'MoRE", act_fn);
  }
};

namespace detail {

/// Distribution function of the standard normal distribution.
template <std::floating_point T>
BasicVar<T> normal_cdf(const BasicVar<T>& x) {
  return unary(
      x, [](T v) { return std::erfc(-v * static_cast<T>(0.70710678118654752)) / 2; },
      [](T v, T) { return static_cast<T>(0.39894228040143268) * std::exp(-v * v / 2); });
}

/// Squared coefficient of variation of the elements of v, [n]: unbiased variance / (mean² + 10⁻¹⁰).
template <std::floating_point T>
BasicVar<T> squared_variation(const BasicVar<T>& v) {
  const auto n = static_cast<T>(v.size());
  const auto middle = mean(v);
  const auto variance = scale(sum(square(sub(v, middle))), 1 / std::max(n - 1, T{1}));
  return div(variance, add_scalar(square(middle), static_cast<T>(1e-10)));
}

}  // namespace detail

/// S'MoRE: y = base(x) + W_fin z_{K−1} + b_fin, z from a tree of low-rank residuals that each token
/// picks from the top down and that is summed from the bottom up.
///
/// A node at level l with the picked children n: z_l = Σ_n α_n σ(s_l (B_{l,n} (A_{l,n} x + a_{l,n})
/// + b_{l,n}) + W_l z_{l−1}^{(n)} + c_l), without the W-term at the leaves (l = 0). Gate: g = [x
/// W_pᵀ + b_p; keys of the picked ancestors, top level first], e = Linear(ReLU(Linear(g))).
/// noisy_topk: logits cos(e, κ), while training + N(0, 1) (softplus(g W_nᵀ) + 0.01), unit keys in
/// g; the f_l largest, α = softmax of these (f_l = 1: the logit). switch: e · κ, softmax over all,
/// the f_l largest divided by their sum, keys as they are in g.
///
/// Widths: d_0 = 0, d_{l+1} = d_l + s_l r_l (s_l experts). A: [s, r, in], a: [s, r], B: [s,
/// d_{l+1}, r], b: [s, d_{l+1}], W: [d_{l+1}, d_l], c: [d_{l+1}], keys κ: [s, d_g], W_n: [s, ·],
/// W_fin: [out, d_K]. The identity at the start with w_final_zero (W_fin = 0), and with b_zero
/// where σ(0) = 0; A Kaiming-uniform, the others too, biases and W_n zero, keys uniform in [0, 1),
/// gates as torch begins linear layers. Loss: balance_loss_weight times, summed over the levels,
/// cv²(importance) + cv²(load) with the smooth estimator of the load, or L_bal for switch; averaged
/// over the adapted layers, padding not counted. Does not merge. All residuals of a level run for
/// every token, the picked ones are gathered. Source: Zeng et al. 2025 (arXiv:2504.06426), section
/// 3, and the authors' program; load: Shazeer et al. 2017 (arXiv:1701.06538), appendix A.
/// Deviation: σ without trained slopes. Tensors: smore.<l>.{A, A_bias, B, B_bias, W, W_bias,
/// gate.0, gate.2, keys, noise}, smore.down, smore.final.
template <std::floating_point T>
class BasicSMoRE {
 public:
  using Scalar = T;
  using Config = SMoREConfig;

  BasicSMoRE(const SMoREConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : config_(config), weight_(detail::share_of_loss(config.balance_loss_weight, site)) {
    config.validate();
    detail::require_plain("S'MoRE", site);
    const Index levels = config.levels(), in = site.in_features, dg = config.gate_dim;
    const auto kaiming = [&](const Shape& shape, Index fan) {
      return detail::fresh<T>(context, shape, [fan](TorchGenerator& g, BasicTensor<T>& t) {
        const double bound = kaiming_uniform_bound(fan, std::sqrt(5.0));
        g.uniform(t.data(), t.size(), -bound, bound);
      });
    };
    const auto zeros = [&](const Shape& shape) { return detail::constant<T>(shape, 0); };
    Index width = 0;
    levels_.resize(static_cast<std::size_t>(levels));
    for (Index l = 0; l < levels; ++l) {
      auto& level = levels_[static_cast<std::size_t>(l)];
      const auto at = static_cast<std::size_t>(l);
      const Index s = config.num_experts[at], r = config.rank[at], next = width + s * r;
      const Index gate_in = config.down_proj_dim + dg * (levels - 1 - l);
      level.experts = s;
      level.rank = r;
      level.width = next;
      level.below = width;
      level.fanout = config.fanout[at];
      level.scaling =
          config.alpha.empty() ? T{1} : static_cast<T>(config.alpha[at] / static_cast<double>(r));
      level.a = kaiming({s, r, in}, in);
      level.a_bias = zeros({s, r});
      level.b = config.init_weights == "b_zero" ? zeros({s, next, r}) : kaiming({s, next, r}, r);
      level.b_bias = zeros({s, next});
      if (l > 0) {
        level.w = kaiming({next, width}, width);
        level.w_bias = zeros({next});
      }
      level.gate0 = kaiming({dg, gate_in}, gate_in);
      level.gate0_bias = kaiming({dg}, gate_in);
      level.gate2 = kaiming({dg, dg}, dg);
      level.gate2_bias = kaiming({dg}, dg);
      level.keys = detail::fresh<T>(context, {s, dg}, [](TorchGenerator& g, BasicTensor<T>& t) {
        g.uniform(t.data(), t.size(), 0, 1);
      });
      if (noisy()) level.noise = zeros({s, gate_in});
      width = next;
    }
    down_ = kaiming({config.down_proj_dim, in}, in);
    down_bias_ = kaiming({config.down_proj_dim}, in);
    final_ = config.init_weights == "w_final_zero" ? zeros({site.out_features, width})
                                                   : kaiming({site.out_features, width}, width);
    final_bias_ = zeros({site.out_features});
  }

  /// Standard normal numbers for the gates of the next passes in training, in place of random ones:
  /// for each level [tokens, nodes, experts]. An empty list: random ones again.
  void set_noise(std::vector<BasicTensor<T>> noise) { given_noise_ = std::move(noise); }

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto rows = detail::as_rows(x);
    const auto counted = counted_rows(tape.template context<ForwardContext>(), rows.rows());
    const Index tokens = rows.rows(), levels = config_.levels();
    std::vector<Picked> picked(static_cast<std::size_t>(levels));
    auto g = add(matmul(rows, tape.parameter(down_), Transpose::no, Transpose::yes),
                 tape.parameter(down_bias_));
    Index nodes = 1;
    for (Index l = levels - 1; l >= 0; --l) {
      const auto& level = levels_[static_cast<std::size_t>(l)];
      auto& p = picked[static_cast<std::size_t>(l)];
      p = pick(level, g, l, nodes);
      if (l > 0) g = with_keys(level, g, p);
      nodes *= level.fanout;
    }
    if (weight_ > 0)
      pending_.leave(tape, [this, picked, counted, tokens] {
        BasicVar<T> total;
        for (std::size_t l = 0; l < picked.size(); ++l) {
          const auto loss = balance(levels_[l], picked[l], counted, tokens);
          total = total ? add(total, loss) : loss;
        }
        return scale(total, weight_);
      });
    BasicVar<T> z;
    for (Index l = 0; l < levels; ++l)
      z = gathered(levels_[static_cast<std::size_t>(l)], rows, z,
                   picked[static_cast<std::size_t>(l)]);
    const auto delta = add(matmul(z, tape.parameter(final_), Transpose::no, Transpose::yes),
                           tape.parameter(final_bias_));
    const auto y = linear(base, x);
    return add(y, reshape(delta, y.shape()));
  }
  BasicVar<T> auxiliary_loss(BasicTape<T>& tape) const { return pending_.take(tape); }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    const auto put = [&](const std::string& name, const BasicParameter<T>& p) {
      if (p) list.push_back(detail::named("smore." + name, p));
    };
    for (std::size_t l = levels_.size(); l-- > 0;) {
      const auto& level = levels_[l];
      const std::string at = std::to_string(l) + ".";
      put(at + "A", level.a);
      put(at + "A_bias", level.a_bias);
      put(at + "B", level.b);
      put(at + "B_bias", level.b_bias);
      put(at + "W", level.w);
      put(at + "W_bias", level.w_bias);
      put(at + "gate.0.weight", level.gate0);
      put(at + "gate.0.bias", level.gate0_bias);
      put(at + "gate.2.weight", level.gate2);
      put(at + "gate.2.bias", level.gate2_bias);
      put(at + "keys", level.keys);
      put(at + "noise.weight", level.noise);
    }
    put("down.weight", down_);
    put("down.bias", down_bias_);
    put("final.weight", final_);
    put("final.bias", final_bias_);
    return list;
  }
  std::string merge_reason() const {
    return "S'MoRE picks its residuals token by token; a weight cannot hold that";
  }
  static MethodInfo info() {
    return {.peft_type = "SMORE",
            .name = "S'MoRE",
            .family = "mixtures",
            .paper = "arXiv:2504.06426",
            .sites = "linear",
            .parameters =
                "; Σ over the levels of s (r in + r + d' r + d') + d' d + d' + d_g g + d_g "
                "+ d_g² + d_g + s d_g + s g, and down and final",
            .mergeable = false,
            .in_peft = false};
  }

 private:
  struct Level {
    Index experts = 0, rank = 0, width = 0, below = 0, fanout = 0;
    T scaling = 1;
    BasicParameter<T> a, a_bias, b, b_bias, w, w_bias, gate0, gate0_bias, gate2, gate2_bias, keys,
        noise;
  };
  /// What the nodes of a level picked; rows are [tokens · nodes].
  struct Picked {
    std::vector<std::int32_t> chosen;  ///< [rows, fanout]
    BasicVar<T> shares;                ///< [rows, fanout]
    BasicVar<T> logits;                ///< [rows, experts], clean
    BasicVar<T> noisy, spread;         ///< with noise, and its size; empty without
    BasicVar<T> probabilities;         ///< of switch
    Index nodes = 1;
  };

  bool noisy() const { return config_.gate_type == "noisy_topk"; }
  static BasicVar<T> unit(const BasicVar<T>& v) { return div(v, norm_last(v)); }
  static std::vector<Index> flat(const std::vector<std::int32_t>& chosen, Index k, Index n) {
    std::vector<Index> index;
    index.reserve(chosen.size());
    for (std::size_t i = 0; i < chosen.size(); ++i)
      index.push_back(static_cast<Index>(i) / k * n + chosen[i]);
    return index;
  }

  Picked pick(const Level& level, const BasicVar<T>& g, Index l, Index nodes) const {
    auto& tape = g.tape();
    const auto layer = [&](const BasicVar<T>& in, const BasicParameter<T>& w,
                           const BasicParameter<T>& b) {
      return add(matmul(in, tape.parameter(w), Transpose::no, Transpose::yes), tape.parameter(b));
    };
    const auto e =
        layer(relu(layer(g, level.gate0, level.gate0_bias)), level.gate2, level.gate2_bias);
    const auto keys = tape.parameter(level.keys);
    const Index rows = g.rows(), s = level.experts, f = level.fanout;
    Picked p;
    p.nodes = nodes;
    p.logits = noisy() ? matmul(unit(e), unit(keys), Transpose::no, Transpose::yes)
                       : matmul(e, keys, Transpose::no, Transpose::yes);
    auto ranked = p.logits;
    if (noisy() && tape.training()) {
      p.spread = add_scalar(
          softplus(matmul(g, tape.parameter(level.noise), Transpose::no, Transpose::yes)),
          static_cast<T>(0.01));
      p.noisy = add(p.logits, mul(p.spread, tape.constant(noise_of(tape, l, rows, s))));
      ranked = p.noisy;
    }
    if (!noisy()) ranked = p.probabilities = softmax(p.logits);
    for (Index i = 0; i < rows; ++i)
      for (const auto n : largest(ranked.value().data() + i * s, s, f)) p.chosen.push_back(n);
    p.shares = take(ranked, flat(p.chosen, f, s), {rows, f});
    if (!noisy())
      p.shares = div(p.shares, sum_axis(p.shares, -1, true));
    else if (f > 1)
      p.shares = softmax(p.shares);
    return p;
  }
  BasicTensor<T> noise_of(BasicTape<T>& tape, Index l, Index rows, Index s) const {
    if (!given_noise_.empty()) {
      const auto& given = given_noise_.at(static_cast<std::size_t>(l));
      if (given.size() != rows * s)
        throw ShapeError(concat("S'MoRE: noise ", given.shape().text(), " for ", rows,
                                " nodes and ", s, " experts"));
      return given.reshape({rows, s});
    }
    auto noise = BasicTensor<T>::empty({rows, s});
    TorchGenerator generator(tape.next_random_key());
    generator.normal(noise.data(), noise.size(), 0.0, 1.0);
    return noise;
  }
  /// The gate inputs of the children: that of the node and the key of the child.
  BasicVar<T> with_keys(const Level& level, const BasicVar<T>& g, const Picked& p) const {
    auto keys = g.tape().parameter(level.keys);
    if (noisy()) keys = unit(keys);
    std::vector<Index> parents;
    for (std::size_t i = 0; i < p.chosen.size(); ++i)
      parents.push_back(static_cast<Index>(i) / level.fanout);
    return concat_along(1, std::vector<BasicVar<T>>{gather_rows(g, std::move(parents)),
                                                    gather_rows(keys, p.chosen)});
  }
  /// z of the nodes of a level from those of its children: [tokens · nodes, width].
  BasicVar<T> gathered(const Level& level, const BasicVar<T>& x, const BasicVar<T>& children,
                       const Picked& p) const {
    auto& tape = x.tape();
    const Index tokens = x.rows(), s = level.experts, r = level.rank, f = level.fanout;
    const auto low = add(matmul(x, reshape(tape.parameter(level.a), {s * r, x.cols()}),
                                Transpose::no, Transpose::yes),
                         reshape(tape.parameter(level.a_bias), {s * r}));
    const auto by_expert = permute(reshape(low, {tokens, s, r}), {1, 0, 2});
    auto residual =
        permute(matmul(by_expert, permute(tape.parameter(level.b), {0, 2, 1})), {1, 0, 2});
    residual = scale(add(residual, tape.parameter(level.b_bias)), level.scaling);
    std::vector<Index> of_token;
    for (std::size_t i = 0; i < p.chosen.size(); ++i)
      of_token.push_back(static_cast<Index>(i) / (f * p.nodes) * s + p.chosen[i]);
    auto h = gather_rows(reshape(residual, {tokens * s, level.width}), std::move(of_token));
    if (children)
      h = add(h, add(matmul(children, tape.parameter(level.w), Transpose::no, Transpose::yes),
                     tape.parameter(level.w_bias)));
    h = detail::apply_activation(config_.act_fn, h);
    const Index nodes = tokens * p.nodes;
    return sum_axis(mul(reshape(h, {nodes, f, level.width}), reshape(p.shares, {nodes, f, 1})), 1);
  }
  BasicVar<T> balance(const Level& level, const Picked& p,
                      const std::vector<unsigned char>& counted, Index tokens) const {
    auto& tape = p.logits.tape();
    const Index s = level.experts, f = level.fanout, rows = tokens * p.nodes;
    std::vector<unsigned char> nodes;
    for (const auto c : counted) nodes.insert(nodes.end(), static_cast<std::size_t>(p.nodes), c);
    if (!noisy()) {
      Routing<T> r;
      r.probabilities = p.probabilities;
      r.chosen = p.chosen;
      r.k = f;
      return balance_loss(r, nodes);
    }
    const auto sums = [&](BasicVar<T> v) {
      if (!nodes.empty()) {
        auto mask = BasicTensor<T>::empty({rows, 1});
        for (Index i = 0; i < rows; ++i) mask[i] = nodes[static_cast<std::size_t>(i)] ? T{1} : T{0};
        v = mul(v, tape.constant(mask));
      }
      return sum_axis(v, 0);
    };
    const auto index = flat(p.chosen, f, s);
    const auto importance = sums(scatter(p.shares, index, Shape{rows, s}));
    BasicVar<T> load;
    if (p.noisy && f < s) {
      // An expert is picked if it beats the f-th of the others.
      const T* values = p.noisy.value().data();
      std::vector<Index> thresholds(static_cast<std::size_t>(rows * s));
      for (Index i = 0; i < rows; ++i) {
        const auto order = largest(values + i * s, s, f + 1);
        for (Index n = 0; n < s; ++n) {
          const bool inside = std::find(order.begin(), order.end() - 1, n) != order.end() - 1;
          thresholds[static_cast<std::size_t>(i * s + n)] =
              i * s + order[static_cast<std::size_t>(inside ? f : f - 1)];
        }
      }
      const auto threshold = take(p.noisy, std::move(thresholds), {rows, s});
      load = sums(detail::normal_cdf(div(sub(p.logits, threshold), p.spread)));
    } else {
      auto counts = BasicTensor<T>::zeros({rows, s});
      for (const Index at : index) counts[at] = 1;
      load = sums(tape.constant(counts));
    }
    return add(detail::squared_variation(importance), detail::squared_variation(load));
  }

  SMoREConfig config_;
  T weight_;
  std::vector<Level> levels_;
  BasicParameter<T> down_, down_bias_, final_, final_bias_;
  std::vector<BasicTensor<T>> given_noise_;
  detail::PendingLoss<T> pending_;
};

using SMoRE = BasicSMoRE<float>;

}  // namespace graft::inline v0_1
