#pragma once

#include <array>
#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/bottleneck/bottleneck.hpp"
#include "graft/adapters/bottleneck/token_rows.hpp"
#include "graft/autograd/ops/unfold.hpp"

namespace graft::inline v0_1 {

/// Configuration of DETRIS.
struct DETRISConfig {
  Index adapter_dim = 128;   ///< a multiple of 16; the original's text adapter: 64
  Index grid = 0;            ///< patches a side; 0: the square root of their number
  Index special_tokens = 5;  ///< tokens before the patches; a text has one
  Index text_dim = 512;      ///< width of the text features; a file decides by itself
  Index attention_dim = 128;
  Index num_heads = 8;
  double scaling = 0.2;
  double attention_dropout = 0;       ///< of attention weights; the original: 0.1
  std::string variant = "vision";     ///< "vision" (dense aligner) or "text"
  TargetModules target_modules = {};  ///< linear layers; none: beside every feed-forward sublayer
  Selection select = {};

  static constexpr const char* kPeftType = "DETRIS";

  template <class Visitor>
  void fields(Visitor& v) {
    v("adapter_dim", adapter_dim);
    v("grid", grid);
    v("special_tokens", special_tokens);
    v("text_dim", text_dim);
    v("attention_dim", attention_dim);
    v("num_heads", num_heads);
    v("scaling", scaling);
    v("attention_dropout", attention_dropout);
    v("variant", variant);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for widths that do not divide, negative sizes, an unknown variant.
  void validate() const {
    if (adapter_dim < 16 || adapter_dim % 16 != 0)
      throw ValueError(concat("DETRIS: adapter_dim ", adapter_dim, ", expected a multiple of 16"));
    if (num_heads < 1 || attention_dim < 1 || attention_dim % num_heads != 0)
      throw ValueError(concat("DETRIS: attention_dim ", attention_dim, " for ", num_heads,
                              " heads, expected a multiple"));
    if (grid < 0 || special_tokens < 0 || text_dim < 1)
      throw ValueError(concat("DETRIS: grid ", grid, ", special_tokens ", special_tokens,
                              ", text_dim ", text_dim, ", expected at least 0, 0 and 1"));
    if (!(attention_dropout >= 0 && attention_dropout < 1))
      throw ValueError(
          concat("DETRIS: attention_dropout ", attention_dropout, ", expected [0, 1)"));
    if (variant != "vision" && variant != "text")
      throw ValueError(concat("DETRIS: variant '", variant, "', expected \"vision\" or \"text\""));
  }
};

namespace detail {

/// ReLU(BatchNorm(conv(x))) along one or two axes, with zeros around; eps 1e-3.
template <std::floating_point T>
class ConvUnit {
 public:
  ConvUnit() = default;
  /// @param kernel  sizes along the axes, odd
  template <class Draw>
  ConvUnit(std::string name, Index out, Index in, std::vector<Index> kernel, Draw&& draw)
      : name_(std::move(name)), kernel_(std::move(kernel)), width_(in) {
    Shape shape{out, in};
    for (const Index k : kernel_) {
      shape.append(k);
      width_ *= k;
    }
    conv_ = draw(shape, width_);
    gain_ = constant<T>({out}, 1);
    offset_ = constant<T>({out}, 0);
    mean_ = BasicParameter<T>(BasicTensor<T>::zeros({out}), false);
    variance_ = BasicParameter<T>(BasicTensor<T>::ones({out}), false);
  }
  /// x: [batch · places, in] -> [batch · places, out]; `sizes` of the axes.
  BasicVar<T> operator()(const BasicVar<T>& x, Index batch, const std::vector<Index>& sizes) const {
    auto& tape = x.tape();
    const Index in = x.cols(), out = gain_.size();
    auto rows = x;
    if (width_ != in) {
      Shape shape{batch, in};
      for (const Index s : sizes) shape.append(s);
      ConvOptions options{
          kernel_, std::vector<Index>(sizes.size(), 1), {}, std::vector<Index>(sizes.size(), 1)};
      for (const Index k : kernel_) options.padding.push_back((k - 1) / 2);
      rows = unfold(reshape(transpose(reshape(x, {batch, x.rows() / batch, in})), shape), options);
    }
    const auto z = add(matmul(rows, reshape(tape.parameter(conv_.weight), {out, width_}),
                              Transpose::no, Transpose::yes),
                       tape.parameter(conv_.bias));
    return relu(add(mul(normalised(z), tape.parameter(gain_)), tape.parameter(offset_)));
  }
  void list(std::vector<AdapterTensor<T>>& tensors) const {
    conv_.list(name_ + ".conv", tensors);
    tensors.push_back(named(name_ + ".bn.weight", gain_));
    tensors.push_back(named(name_ + ".bn.bias", offset_));
    tensors.push_back(named(name_ + ".bn.running_mean", mean_));
    tensors.push_back(named(name_ + ".bn.running_var", variance_));
  }
  /// Moves the running statistics a tenth of the way to those of the last training pass.
  void follow() {
    if (!seen_mean_) return;
    const auto move = [](BasicTensor<T> to, const BasicTensor<T>& seen) {
      for (Index i = 0; i < to.size(); ++i) to[i] += (seen[i] - to[i]) / 10;
    };
    move(mean_.value(), seen_mean_);
    move(variance_.value(), seen_variance_);
    seen_mean_ = seen_variance_ = {};
  }

 private:
  BasicVar<T> normalised(const BasicVar<T>& z) const {
    auto& tape = z.tape();
    const T eps = static_cast<T>(1e-3);
    if (!tape.training()) {
      auto factor = variance_.value().clone();
      for (T& v : factor) v = 1 / std::sqrt(v + eps);
      return mul(sub(z, tape.constant(mean_.value())), tape.constant(factor));
    }
    const auto mean = mean_axis(z, 0);
    const auto centred = sub(z, mean), variance = mean_axis(square(centred), 0);
    seen_mean_ = mean.value().clone();
    seen_variance_ = variance.value().clone();
    const T n = static_cast<T>(z.rows());
    for (T& v : seen_variance_) v *= n / std::max(n - 1, T{1});
    return div(centred, sqrt(add_scalar(variance, eps)));
  }

  std::string name_;
  std::vector<Index> kernel_;
  Index width_ = 0;
  TrainedAffine<T> conv_;
  BasicParameter<T> gain_, offset_, mean_, variance_;
  mutable BasicTensor<T> seen_mean_, seen_variance_;
};

}  // namespace detail

/// The adapter beside one layer.
template <std::floating_point T>
class BasicDETRIS {
 public:
  using Scalar = T;
  /// Features of the other encoder for the batch, [batch, tokens, text_dim], for all sites.
  struct Text {
    BasicTensor<T> values;
    BasicVar<T> var;
  };

  BasicDETRIS(const DETRISConfig& config, Index in, Index out, InitContext<T>& context)
      : config_(config),
        vision_(config.variant == "vision"),
        text_(context.shared.object("detris.text", [] { return Text(); })) {
    const Index d = config.adapter_dim;
    const auto layer = [&](const Shape& shape, Index fan_in) {
      if (!vision_)
        return detail::TrainedAffine<T>{detail::linear_default<T>(context, shape, fan_in),
                                        detail::linear_default<T>(context, {shape[0]}, fan_in)};
      const double std = std::sqrt(2.0 / static_cast<double>(fan_in));
      return detail::TrainedAffine<T>{detail::fresh<T>(context, shape,
                                                       [std](TorchGenerator& g, BasicTensor<T>& t) {
                                                         g.normal(t.data(), t.size(), 0, std);
                                                       }),
                                      detail::constant<T>({shape[0]}, 0)};
    };
    down_ = layer({d, in}, in);
    const auto unit = [&](const char* name, Index to, Index from, Index k) {
      return detail::ConvUnit<T>(concat("aligner.", name), to, from,
                                 std::vector<Index>(vision_ ? 2 : 1, k), layer);
    };
    units_ = {unit("branch1.0", d / 2, d, 1), unit("branch2.0", d / 16, d + d / 2, 1),
              unit("branch2.1", d / 4, d / 16, 3), unit("branch3.0", d / 16, d + d / 2 + d / 4, 1),
              unit("branch3.1", d / 4, d / 16, 5)};
    if (vision_) {
      const Index e = config.attention_dim;
      query_ = layer({e, d}, d);
      features_ = layer({e, config.text_dim}, config.text_dim);
      const double bound = std::sqrt(6.0 / static_cast<double>(4 * e));
      in_proj_ = {detail::fresh<T>(context, {3 * e, e},
                                   [bound](TorchGenerator& g, BasicTensor<T>& t) {
                                     g.uniform(t.data(), t.size(), -bound, bound);
                                   }),
                  detail::constant<T>({3 * e}, 0)};
      out_proj_ = layer({e, e}, e);
      back_ = layer({d, e}, e);
    }
    up_ = layer({out, d}, d);
  }
  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    const auto y = linear(base, x);
    return add(y, reshape(branch(x), y.shape()));
  }
  BasicVar<T> apply(const BasicVar<T>& input, const BasicVar<T>& output, const BasicVar<T>&) const {
    return add(output, reshape(branch(input), output.shape()));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    down_.list("aligner.down", list);
    for (const auto& unit : units_) unit.list(list);
    if (vision_) {
      query_.list("aligner.query", list);
      features_.list("aligner.text", list);
      in_proj_.list("aligner.in_proj", list);
      out_proj_.list("aligner.out_proj", list);
      back_.list("aligner.back", list);
    }
    up_.list("aligner.up", list);
    return list;
  }
  void before_load(const CheckpointShapes& shapes) {
    const Shape* shape = vision_ ? shapes("aligner.text.weight") : nullptr;
    if (shape == nullptr || shape->rank() != 2 || (*shape)[1] == features_.weight.value().cols())
      return;
    features_.weight = detail::constant<T>({config_.attention_dim, (*shape)[1]}, 0);
  }
  std::string merge_reason() const { return "convolutions and activations are not linear"; }

  /// The features that the sites of this adapter look at, [batch, tokens, text_dim]: values, or a
  /// result of the same tape that gets a gradient. Without, they come with the batch (`visual`).
  void set_text(BasicTensor<T> values) const { *text_ = {std::move(values), {}}; }
  void set_text(BasicVar<T> var) const { *text_ = {{}, std::move(var)}; }
  /// After a training step: running statistics of the norms.
  void follow() {
    for (auto& unit : units_) unit.follow();
  }

 private:
  /// scaling · Δ, [batch · tokens, out].
  BasicVar<T> branch(const BasicVar<T>& u) const {
    const Index batch = detail::batch_rows(u), tokens = u.rows() / batch, d = config_.adapter_dim,
                special = vision_ ? config_.special_tokens : Index{1}, places = tokens - special;
    if (places < 0)
      throw ShapeError(concat("DETRIS: ", tokens, " tokens, ", special, " of them special"));
    const auto x0 = relu(down_(reshape(u, {u.rows(), u.cols()})));
    auto sum = x0;
    if (places > 0) {
      const auto rows = reshape(x0, {batch, tokens, d});
      const auto x = reshape(slice(rows, 1, special, places), {batch * places, d});
      auto y = convolved(x, batch, places);
      if (vision_) y = attended(add(y, x), batch);
      auto parts = std::vector<BasicVar<T>>{reshape(y, {batch, places, d})};
      if (special > 0) parts.insert(parts.begin(), slice(rows, 1, 0, special));
      sum = add(x0, reshape(concat_along(1, parts), x0.shape()));
    }
    return scale(up_(sum), static_cast<T>(config_.scaling));
  }
  /// [β₁, β₂, β₃].
  BasicVar<T> convolved(const BasicVar<T>& x, Index batch, Index places) const {
    std::vector<Index> sizes{places};
    if (vision_) {
      const Index side =
          config_.grid > 0 ? config_.grid : std::llround(std::sqrt(static_cast<double>(places)));
      if (side * side != places)
        throw ShapeError(concat("DETRIS: ", places, " patches, expected a grid of ", side, " x ",
                                side, ", as layers of an image encoder have"));
      sizes = {side, side};
    }
    const auto join = [](const std::vector<BasicVar<T>>& list) { return concat_along(1, list); };
    const auto b1 = units_[0](x, batch, sizes);
    const auto b2 = units_[2](units_[1](join({x, b1}), batch, sizes), batch, sizes);
    const auto b3 = units_[4](units_[3](join({x, b1, b2}), batch, sizes), batch, sizes);
    return join({b1, b2, b3});
  }
  /// Attention of the patches to the text, which takes their place.
  BasicVar<T> attended(const BasicVar<T>& y, Index batch) const {
    auto& tape = y.tape();
    const auto text = this->text(tape, batch);
    const Index e = config_.attention_dim, heads = config_.num_heads, width = e / heads;
    const auto project = [&](const BasicVar<T>& x, Index part) {
      const auto z = add(matmul(x, slice(tape.parameter(in_proj_.weight), 0, part * e, e),
                                Transpose::no, Transpose::yes),
                         slice(tape.parameter(in_proj_.bias), 0, part * e, e));
      return permute(reshape(z, {batch, z.rows() / batch, heads, width}), {0, 2, 1, 3});
    };
    const auto keys = features_(text);
    const auto q = project(query_(y), 0), k = project(keys, 1), v = project(keys, 2);
    const auto scores = scale(matmul(q, k, Transpose::no, Transpose::yes),
                              static_cast<T>(1 / std::sqrt(static_cast<double>(width))));
    const auto mixed = matmul(dropout(softmax(scores), config_.attention_dropout), v);
    return back_(out_proj_(reshape(permute(mixed, {0, 2, 1, 3}), {y.rows(), e})));
  }
  BasicVar<T> text(BasicTape<T>& tape, Index batch) const {
    BasicVar<T> found;
    const auto* context = tape.template context<ForwardContext>();
    if (text_->var && &text_->var.tape() == &tape) {
      found = text_->var;
    } else if (text_->values) {
      found = tape.constant(text_->values);
    } else if (context != nullptr && !context->visual.empty()) {
      auto values = BasicTensor<T>::empty(
          {std::ssize(context->visual) / context->visual_width, context->visual_width});
      std::copy(context->visual.begin(), context->visual.end(), values.begin());
      found = tape.constant(values);
    } else {
      throw ValueError(
          "DETRIS: no text features; set_text gives them to the adapter, or the batch has them");
    }
    const Index width = features_.weight.value().cols();
    if (found.cols() != width || found.rows() % batch != 0)
      throw ShapeError(concat("DETRIS: text ", found.shape().text(), " for a batch of ", batch,
                              ", expected a width of ", width));
    return reshape(found, {found.rows(), width});
  }

  DETRISConfig config_;
  bool vision_;
  std::shared_ptr<Text> text_;
  std::array<detail::ConvUnit<T>, 5> units_;
  detail::TrainedAffine<T> down_, up_, query_, features_, in_proj_, out_proj_, back_;
};

/// The norms of DETRIS follow the batches of a training run, the last one of each step.
template <std::floating_point T>
class DETRISProcedure final : public Procedure<T> {
 public:
  explicit DETRISProcedure(std::vector<BasicDETRIS<T>*> adapters)
      : adapters_(std::move(adapters)) {}
  void after_step(const StepInfo&) override {
    for (auto* adapter : adapters_) adapter->follow();
  }

 private:
  std::vector<BasicDETRIS<T>*> adapters_;
};

/// DETRIS: h ← F(u) + s Δ(u) for a feed-forward sublayer F, Δ(u) = (x₀ + [special; Z]) D₂ᵀ + b₂, x₀
/// = ReLU(u D₁ᵀ + b₁). Dense aligner: the patches of x₀ as a grid X, β₁ = C₁(X), β₂ = C₃(C₁([X,
/// β₁])), β₃ = C₅(C₁([X, β₁, β₂])) with C_k a k × k convolution, BatchNorm and ReLU; Z is the
/// attention of [β₁, β₂, β₃] + X to text features. Text adapter: convolutions along the tokens, the
/// first of them left out, Z = [β₁, β₂, β₃].
///
/// D₁: [r, in], D₂: [out, r], branches of r/2, r/4 and r/4 channels through r/16. Trained a site: r
/// (in + out) + r + out, the branches 79/64 r² + 27/8 r (text: 53/64 r² + 27/8 r), the attention 2
/// r e + 4 e² + e text_dim + 6 e + r, e = attention_dim. Not the identity at the start. Not
/// mergeable. While training the norms take the statistics of the batch, and running ones follow
/// with momentum 0.1 once a step; else those. The text comes by `set_text`, or with the batch in
/// the place of visual tokens. Source: Huang et al. 2025 (arXiv:2501.08580), section 3. Tensors:
/// aligner.{down, up, query, text, in_proj, out_proj, back}.{weight, bias},
/// aligner.branch{1.0, 2.0, 2.1, 3.0, 3.1}.{conv.{weight, bias}, bn.{weight, bias, running_mean,
/// running_var}}.
template <std::floating_point T>
struct DETRISMethod {
  using Scalar = T;
  using Config = DETRISConfig;
  static constexpr bool kByRole = true;
  static Config example() {
    Config config;
    config.adapter_dim = 16;
    config.variant = "text";
    return config;
  }
  static MethodInfo info() {
    return {.peft_type = "DETRIS",
            .name = "DETRIS",
            .family = "bottleneck",
            .paper = "arXiv:2501.08580",
            .sites = "hidden, linear",
            .parameters = "; r (in + out) + r + out, 79/64 r^2 + 27/8 r of branches, and attention",
            .mergeable = false,
            .in_peft = false,
            .identity_at_init = false,
            .unused_dropout = "attention_dropout"};
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    if (config.target_modules.empty()) return nullptr;
    return linear_part(BasicDETRIS<T>(config, site.in_features, site.out_features, context));
  }
  static std::shared_ptr<HiddenPart<T>> hidden(const Config& config, const HiddenSiteInfo<T>& site,
                                               InitContext<T>& context) {
    if (!config.target_modules.empty() || site.role != HiddenRole::feed_forward) return nullptr;
    return hidden_part(BasicDETRIS<T>(config, site.width, site.width, context));
  }
  static std::unique_ptr<Procedure<T>> procedure(const Config&,
                                                 const std::vector<PlacedPart<T>>& parts) {
    return std::make_unique<DETRISProcedure<T>>(methods_of<BasicDETRIS<T>>(parts));
  }
};

}  // namespace graft::inline v0_1
