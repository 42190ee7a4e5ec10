#pragma once

#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "graft/adapters/sublayer.hpp"

namespace graft::inline v0_1 {

/// Configuration of MEFT.
struct MEFTConfig {
  Index variant = 1;  ///< 1, 2 or 3: which functions the two streams go through
  Index adapter_dim = 8;
  double x1_factor = 0.1;              ///< λ; 1 for variant 2 in the paper
  double x2_factor = 1;                ///< β; 0.1 for variants 2 and 3 in the paper
  std::string non_linearity = "gelu";  ///< φ; the paper: that of the model
  bool layer_norm = false;  ///< in front of the free-standing adapter of variants 1 and 2
  /// Blocks, from the first on, that keep nothing for the backward pass; none given: all. The
  /// results are the same.
  std::optional<Index> num_rev_layers = {};

  static constexpr const char* kPeftType = "MEFT";

  template <class Visitor>
  void fields(Visitor& v) {
    v("variant", variant);
    v("adapter_dim", adapter_dim);
    v("x1_factor", x1_factor);
    v("x2_factor", x2_factor);
    v("non_linearity", non_linearity);
    v("layer_norm", layer_norm);
    v("num_rev_layers", num_rev_layers);
  }
  /// @throws ValueError for another variant, a width below one, a factor of zero, an unknown
  /// activation
  void validate() const {
    if (variant < 1 || variant > 3 || adapter_dim < 1 || x1_factor == 0 || x2_factor == 0 ||
        num_rev_layers.value_or(0) < 0)
      throw ValueError(concat("MEFT: variant ", variant, " (1, 2 or 3), adapter_dim ", adapter_dim,
                              ", x1_factor ", x1_factor, " and x2_factor ", x2_factor,
                              " (not zero), num_rev_layers ", num_rev_layers.value_or(0)));
    detail::require_activation("MEFT", non_linearity);
  }
};

namespace detail {

/// U φ(D LN(x) + b_D) + b_U, D: [r, d], U: [d, r], both N(0, 0.02²), biases zero; the LayerNorm
/// (eps 1e-5) if asked for. Trained: 2 r d + r + d, and 2 d.
template <std::floating_point T>
class MEFTBottleneck {
 public:
  using Scalar = T;

  MEFTBottleneck(const MEFTConfig& config, Index width, bool layer_norm, InitContext<T>& context)
      : activation_(config.non_linearity) {
    const auto normal = [](TorchGenerator& g, BasicTensor<T>& t) {
      g.normal(t.data(), t.size(), 0.0, 0.02);
    };
    const Index r = config.adapter_dim;
    down_ = fresh<T>(context, {r, width}, normal);
    down_bias_ = constant<T>({r}, 0);
    up_ = fresh<T>(context, {width, r}, normal);
    up_bias_ = constant<T>({width}, 0);
    if (!layer_norm) return;
    norm_weight_ = constant<T>({width}, 1);
    norm_bias_ = constant<T>({width}, 0);
  }
  BasicVar<T> operator()(const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto h = norm_weight_ ? graft::layer_norm(x, tape.parameter(norm_weight_),
                                                    tape.parameter(norm_bias_), T(1e-5))
                                : x;
    return affine(apply_activation(activation_, affine(h, down_, down_bias_)), up_, up_bias_);
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector list{named("adapter_down.weight", down_), named("adapter_down.bias", down_bias_),
                     named("adapter_up.weight", up_), named("adapter_up.bias", up_bias_)};
    if (norm_weight_) {
      list.push_back(named("adapter_norm.weight", norm_weight_));
      list.push_back(named("adapter_norm.bias", norm_bias_));
    }
    return list;
  }
  std::string merge_reason() const {
    return "MEFT runs the blocks on two streams; that is no change of a weight";
  }

 private:
  std::string activation_;
  BasicParameter<T> down_, down_bias_, up_, up_bias_, norm_weight_, norm_bias_;
};

/// The adapter beside a feed-forward network: y = F(u) + A(u).
template <std::floating_point T>
class MEFTBeside {
 public:
  using Scalar = T;

  explicit MEFTBeside(MEFTBottleneck<T> module) : module_(std::move(module)) {}
  BasicVar<T> apply(const BasicVar<T>& input, const BasicVar<T>& output, const BasicVar<T>&) const {
    return add(output, module_(input));
  }
  std::vector<AdapterTensor<T>> tensors() const { return module_.tensors(); }
  std::string merge_reason() const { return module_.merge_reason(); }

 private:
  MEFTBottleneck<T> module_;
};

/// The free-standing adapter of a block.
template <std::floating_point T>
class MEFTReversible final : public AdapterPart<T> {
 public:
  explicit MEFTReversible(MEFTBottleneck<T> adapter) : module(std::move(adapter)) {}
  std::vector<AdapterTensor<T>> tensors() const override {
    return below("reversible.", module.tensors());
  }
  std::string merge_reason() const override { return module.merge_reason(); }

  MEFTBottleneck<T> module;
};

}  // namespace detail

/// Runs the blocks of a model on two streams.
template <std::floating_point T>
class MEFTStack final : public AdapterPart<T>, public StackAdapterInterface<T> {
 public:
  using Blocks = std::vector<std::shared_ptr<const detail::MEFTReversible<T>>>;

  /// `adapters`: the free-standing ones, one a block; none for variant 3.
  MEFTStack(const MEFTConfig& config, Blocks adapters) : coupling_{config, std::move(adapters)} {}
  std::vector<AdapterTensor<T>> tensors() const override { return {}; }
  void begin(BasicTape<T>&) const override {}
  BasicVar<T> enter(Index, const BasicVar<T>& x) const override { return x; }
  void leave(Index, const BasicVar<T>&) const override {}
  bool runs_blocks() const override { return true; }

  BasicVar<T> run(const BasicVar<T>& x, const StackBlocks<T>& blocks) const override {
    if (coupling_.config.variant == 3 && !blocks.attention)
      throw ValueError(
          "MEFT: variant 3 needs blocks of an attention and a feed-forward network, one after the "
          "other");
    auto& tape = x.tape();
    Pass pass{coupling_, blocks};
    const Index all = blocks.count, limit = coupling_.config.num_rev_layers.value_or(all),
                reversible = tape.gradients() ? std::min(limit, all) : all;
    Wide one = x.value().template cast<double>(), two = one;
    if (!tape.gradients()) {
      for (Index l = 0; l < all; ++l) pass.forward(l, tape, one, two);
      keep(one, two);
      return tape.constant(half_sum(one, two));
    }
    BasicVar<T> x1 = x, x2 = x;
    if (reversible > 0) {
      const auto both = reversed(x, pass, reversible, one, two);
      x1 = slice(both, 0, 0, x.rows());
      x2 = slice(both, 0, x.rows(), x.rows());
    }
    for (Index l = reversible; l < all; ++l) {
      const auto y1 = add(scale(x1, pass.lambda()), pass.f(l, x2));
      const auto y2 = add(scale(x2, pass.beta()), pass.g(l, y1));
      x1 = pass.swaps() ? y2 : y1;
      x2 = pass.swaps() ? y1 : y2;
    }
    if (reversible < all) {
      one = x1.value().template cast<double>();
      two = x2.value().template cast<double>();
    }
    keep(one, two);
    return scale(add(x1, x2), T(0.5));
  }
  /// The two streams after the last block of the last pass, [tokens, hidden] each.
  const std::pair<BasicTensor<T>, BasicTensor<T>>& last_streams() const { return streams_; }

 private:
  /// Streams are added and subtracted in double precision, functions of them are computed in T: so
  /// the backward pass finds the inputs of the functions again, bit for bit over some ten blocks.
  using Wide = BasicTensor<double>;

  struct Coupling {
    MEFTConfig config;
    Blocks adapters;
  };
  /// y1 = λ x1 + F(x2), y2 = β x2 + G(y1) of each block.
  struct Pass {
    Coupling coupling;
    StackBlocks<T> blocks;
    std::vector<std::uint64_t> random_f = {}, random_g = {};  // state of the tape before each call

    bool swaps() const { return coupling.config.variant != 3; }
    T lambda() const { return static_cast<T>(coupling.config.x1_factor); }
    T beta() const { return static_cast<T>(coupling.config.x2_factor); }
    BasicVar<T> adapter(Index l, const BasicVar<T>& x) const {
      return coupling.adapters.at(static_cast<std::size_t>(l))->module(x);
    }
    BasicVar<T> f(Index l, const BasicVar<T>& x) const {
      if (coupling.config.variant == 1) return blocks.block(l, x, blocks.tokens);
      if (coupling.config.variant == 2) return adapter(l, x);
      return blocks.attention(l, x, blocks.tokens);
    }
    BasicVar<T> g(Index l, const BasicVar<T>& x) const {
      if (coupling.config.variant == 1) return adapter(l, x);
      if (coupling.config.variant == 2) return blocks.block(l, x, blocks.tokens);
      return blocks.feed_forward(l, x, blocks.tokens);
    }
    /// A stream as functions see it. Multiples of 0.1 lie half-way between two floats as a rule,
    /// not by chance; a shift by less than half a step takes them from there, so that the stream
    /// that the backward pass finds, which is another by rounding of doubles, gives the same
    /// floats.
    static BasicTensor<T> rounded(const Wide& stream) {
      if constexpr (std::is_same_v<T, double>) {
        return stream;
      } else {
        constexpr double kShift = 1 + 0.3183 * std::numeric_limits<T>::epsilon() / 4;
        auto y = BasicTensor<T>::empty(stream.shape());
        for (Index i = 0; i < y.size(); ++i) y[i] = static_cast<T>(stream[i] * kShift);
        return y;
      }
    }
    static Wide combined(double factor, const Wide& stream, const BasicTensor<T>& added) {
      auto y = Wide::empty(stream.shape());
      for (Index i = 0; i < y.size(); ++i)
        y[i] = factor * stream[i] + static_cast<double>(added[i]);
      return y;
    }
    static Wide separated(double factor, const Wide& stream, const BasicTensor<T>& added) {
      auto x = Wide::empty(stream.shape());
      for (Index i = 0; i < x.size(); ++i)
        x[i] = (stream[i] - static_cast<double>(added[i])) / factor;
      return x;
    }
    /// The streams after block l, on a tape without gradients.
    void forward(Index l, BasicTape<T>& tape, Wide& one, Wide& two) {
      random_f.push_back(tape.random_calls());
      const auto f_value = f(l, tape.constant(rounded(two))).value();
      const auto y1 = combined(coupling.config.x1_factor, one, f_value);
      random_g.push_back(tape.random_calls());
      const auto g_value = g(l, tape.constant(rounded(y1))).value();
      const auto y2 = combined(coupling.config.x2_factor, two, g_value);
      one = swaps() ? y2 : y1;
      two = swaps() ? y1 : y2;
    }
  };

  static BasicTensor<T> half_sum(const Wide& one, const Wide& two) {
    auto y = BasicTensor<T>::empty(one.shape());
    for (Index i = 0; i < y.size(); ++i) y[i] = static_cast<T>((one[i] + two[i]) / 2);
    return y;
  }
  void keep(const Wide& one, const Wide& two) const {
    streams_ = {one.template cast<T>(), two.template cast<T>()};
  }

  /// The streams after `count` blocks, one below the other; keeps these two and nothing else.
  static BasicVar<T> reversed(const BasicVar<T>& x, Pass& pass, Index count, Wide& one, Wide& two) {
    auto& tape = x.tape();
    auto options = tape.options();
    const auto context = tape.shared_context();
    {
      options.gradients = false;
      BasicTape<T> inner(options);
      inner.set_random_calls(tape.random_calls());
      inner.set_context(context);
      for (Index l = 0; l < count; ++l) pass.forward(l, inner, one, two);
      tape.set_random_calls(inner.random_calls());
    }
    options.gradients = true;
    const Index rows = x.rows(), width = x.cols();
    auto both = BasicTensor<T>::empty({2 * rows, width});
    for (Index i = 0; i < rows * width; ++i) {
      both[i] = static_cast<T>(one[i]);
      both[rows * width + i] = static_cast<T>(two[i]);
    }
    return tape.record(
        std::move(both), true,
        [pass, options, context, count, rows, kept_one = one, kept_two = two,
         gx = x.grad_ref()](const BasicTensor<T>& dy) {
          // The gradient of a function at a point, and what it is there.
          const auto back = [&](std::uint64_t calls, const Wide& at, const BasicTensor<T>& gradient,
                                const auto& function) {
            BasicTape<T> inner(options);
            inner.set_random_calls(calls);
            inner.set_context(context);
            const auto leaf = inner.leaf(Pass::rounded(at));
            const auto y = function(leaf);
            if (y.requires_grad()) inner.backward(y, gradient);
            return std::pair{y.value(), leaf.grad()};
          };
          const auto plus = [](T factor, const BasicTensor<T>& a, const BasicTensor<T>& b) {
            auto sum = a.clone();
            for (Index i = 0; i < sum.size(); ++i) sum[i] = factor * a[i] + (b ? b[i] : T{0});
            return sum;
          };
          Wide s1 = kept_one, s2 = kept_two;
          auto d1 = dy.slice_rows(0, rows).clone(), d2 = dy.slice_rows(rows, rows).clone();
          for (Index l = count - 1; l >= 0; --l) {
            const auto i = static_cast<std::size_t>(l);
            if (pass.swaps()) {
              std::swap(s1, s2);
              std::swap(d1, d2);
            }
            const auto [g, through_g] = back(pass.random_g[i], s1, d2,
                                             [&](const BasicVar<T>& at) { return pass.g(l, at); });
            d1 = plus(T{1}, d1, through_g);
            s2 = Pass::separated(pass.coupling.config.x2_factor, s2, g);
            const auto [f, through_f] = back(pass.random_f[i], s2, d1,
                                             [&](const BasicVar<T>& at) { return pass.f(l, at); });
            s1 = Pass::separated(pass.coupling.config.x1_factor, s1, f);
            d2 = plus(pass.beta(), d2, through_f);
            d1 = plus(pass.lambda(), d1, {});
          }
          if (gx) gx.add(plus(T{1}, d1, d2));
        });
  }

  Coupling coupling_;
  mutable std::pair<BasicTensor<T>, BasicTensor<T>> streams_;
};

/// MEFT: the blocks run on two streams that can be computed back from their results, so that the
/// backward pass needs the last two and nothing in between.
///
///     y1 = λ x1 + F(x2),  y2 = β x2 + G(y1);  x1 = x2 = h_0 at first, (x1 + x2) / 2 at last
///     1: F = block, G = A, then the streams change places
///     2: F = A, G = block, then the streams change places
///     3: F = attention, G = feed-forward network, each with its norm and residual sum
///
/// A(x) = U φ(D x + b_D) + b_U, D: [r, d], U: [d, r]. Every feed-forward network has one beside it
/// (added to its output), the attentions of variant 3 one behind the output projection, the blocks
/// of variants 1 and 2 a free-standing one. Trained: 2 (2 r d + r + d) a block. Streams are kept in
/// double precision: the inverse divides by λ and β, which multiplies rounding errors by up to 1/(λ
/// β) a block. The backward pass of a block runs its functions once more, with the same dropout.
/// Close to, but not the model's own result at the start; cannot be merged. Keeps 2 tensors of
/// double precision however many blocks there are. Source: Liao et al. 2023 (arXiv:2306.00477),
/// tables and program. Tensors: adapter_{down, up}.{weight, bias} at the sublayers, reversible.… at
/// the blocks.
template <std::floating_point T>
struct MEFTMethod {
  using Scalar = T;
  using Config = MEFTConfig;
  static constexpr bool kByRole = true;

  static MethodInfo info() {
    return {.peft_type = "MEFT",
            .name = "MEFT",
            .family = "memory",
            .paper = "arXiv:2306.00477",
            .sites = "blocks",
            .parameters = "; 2 (2 r d + r + d) a block, r = adapter_dim",
            .mergeable = false,
            .in_peft = false,
            .identity_at_init = false};
  }
  static std::shared_ptr<HiddenPart<T>> hidden(const Config& config, const HiddenSiteInfo<T>& site,
                                               InitContext<T>& context) {
    const auto module = [&] {
      return detail::MEFTBottleneck<T>(config, site.width, false, context);
    };
    if (site.role == HiddenRole::feed_forward) return hidden_part(detail::MEFTBeside<T>(module()));
    if (site.role == HiddenRole::attention && config.variant == 3)
      return hidden_part(SerialAdapter<detail::MEFTBottleneck<T>>(module()));
    return nullptr;
  }
  template <class Set>
  static void finish(const Config& config, Set& set, BasicSiteTable<T>& table,
                     InitContext<T>& context) {
    if (table.stack == nullptr)
      throw ValueError(
          concat("MEFT: the model (", table.info.architecture, ") has no single stack of blocks"));
    typename MEFTStack<T>::Blocks adapters;
    for (const auto* site : table.hidden) {
      if (site->role() != HiddenRole::block || config.variant == 3) continue;
      const auto part = std::make_shared<detail::MEFTReversible<T>>(
          detail::MEFTBottleneck<T>(config, site->width(), config.layer_norm, context));
      set.add_part(site->path(), part);
      adapters.push_back(part);
    }
    const auto part = std::make_shared<MEFTStack<T>>(config, std::move(adapters));
    table.stack->adapters().push_back({set.name(), part});
    set.add_part(table.stack->path(), part);
  }
};

}  // namespace graft::inline v0_1
