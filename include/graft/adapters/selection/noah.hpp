#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/named_activation.hpp"
#include "graft/adapters/selection/noah_search.hpp"
#include "graft/adapters/sublayer.hpp"
#include "graft/adapters/target_match.hpp"
#include "graft/base/splitmix.hpp"

namespace graft::inline v0_1 {

/// Configuration of NOAH. Widths are numbers, or lists with one for each block.
struct NOAHConfig {
  ConfigValue prompt = Index{0};  ///< prompts before a block; only models with a class token
  ConfigValue rank = Index{10};   ///< r, of the LoRA on the target modules
  ConfigValue adapter = Index{10};
  Index max_prompt = 100, max_rank = 100, max_adapter = 100;
  double adapter_scale = 0.1;
  double lora_scale = 1;
  bool supernet = false;  ///< each step trains widths of its own, drawn from `choices`
  std::vector<Index> choices = {0, 5, 10, 50, 100};
  std::uint64_t seed = 0;  ///< of what is drawn
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "NOAH";

  template <class Visitor>
  void fields(Visitor& v) {
    v("prompt", prompt);
    v("r", rank);
    v("adapter", adapter);
    v("max_prompt", max_prompt);
    v("max_rank", max_rank);
    v("max_adapter", max_adapter);
    v("adapter_scale", adapter_scale);
    v("lora_scale", lora_scale);
    optional_field(v, "supernet", supernet, false);
    v("choices", choices);
    optional_field(v, "seed", seed, 0);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// Widths of all blocks. @throws ValueError for a width outside of [0, most], or another number
  /// of them than of blocks
  static std::vector<Index> widths(const char* what, const ConfigValue& value, Index most,
                                   Index blocks) {
    std::vector<Index> list;
    if (value.is_number())
      list.assign(static_cast<std::size_t>(blocks), static_cast<Index>(value.number()));
    else
      detail::read_config(what, value, list);
    if (static_cast<Index>(list.size()) != blocks)
      throw ValueError(
          concat("NOAH: ", list.size(), " values of ", what, " for ", blocks, " blocks"));
    for (const Index w : list)
      if (w < 0 || w > most)
        throw ValueError(concat("NOAH: ", what, " ", w, ", expected 0 to ", most));
    return list;
  }
};

namespace noah {

/// The widths that act, block by block; shared by all parts of an adapter.
struct Widths {
  std::vector<Index> prompt, rank, adapter;
};

}  // namespace noah

/// LoRA of which the first ranks act: y = base(x) + s (x A[:r]ᵀ) B[:, :r]ᵀ.
template <std::floating_point T>
class BasicNOAHLoRA {
 public:
  using Scalar = T;

  BasicNOAHLoRA(const NOAHConfig& config, Index in, Index out, Index block,
                std::shared_ptr<const noah::Widths> widths, InitContext<T>& context)
      : block_(static_cast<std::size_t>(block)),
        scale_(static_cast<T>(config.lora_scale)),
        widths_(std::move(widths)),
        a_(detail::linear_default<T>(context, {config.max_rank, in}, in)),
        b_(BasicTensor<T>::zeros({out, config.max_rank})) {}
  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    const Index r = widths_->rank.at(block_);
    if (r == 0) return linear(base, x);
    auto& tape = x.tape();
    return linear_low_rank(base, x, x, slice(tape.parameter(a_), 0, 0, r),
                           slice(tape.parameter(b_), 1, 0, r), scale_);
  }
  std::vector<AdapterTensor<T>> tensors() const {
    return {detail::named("lora_A.weight", a_), detail::named("lora_B.weight", b_)};
  }
  std::string merge_reason() const {
    return "prompts and adapters of NOAH stay beside the weights";
  }

 private:
  std::size_t block_;
  T scale_;
  std::shared_ptr<const noah::Widths> widths_;
  BasicParameter<T> a_, b_;
};

/// Adapter of which the first hidden units act: y + s (φ(N(y) D[:a]ᵀ + b_D[:a]) U[:, :a]ᵀ + b_U), φ
/// QuickGELU, N a frozen norm.
template <std::floating_point T>
class BasicNOAHAdapter {
 public:
  using Scalar = T;

  /// The norm outlives the adapter; null: none.
  BasicNOAHAdapter(const NOAHConfig& config, Index width, Index block, const BasicNormSite<T>* norm,
                   std::shared_ptr<const noah::Widths> widths, InitContext<T>& context)
      : block_(static_cast<std::size_t>(block)),
        scale_(static_cast<T>(config.adapter_scale)),
        norm_(norm),
        widths_(std::move(widths)),
        down_(detail::linear_default<T>(context, {config.max_adapter, width}, width)),
        down_bias_(BasicTensor<T>::zeros({config.max_adapter})),
        up_(BasicTensor<T>::zeros({width, config.max_adapter})),
        up_bias_(BasicTensor<T>::zeros({width})) {}
  BasicVar<T> apply(const BasicVar<T>&, const BasicVar<T>& output, const BasicVar<T>&) const {
    const Index a = widths_->adapter.at(block_);
    if (a == 0) return output;
    auto& tape = output.tape();
    const auto h = add(
        affine(norm_ != nullptr ? (*norm_)(output) : output, slice(tape.parameter(down_), 0, 0, a)),
        slice(tape.parameter(down_bias_), 0, 0, a));
    const auto y = add(
        affine(activation(kernels::Activation::quick_gelu, h), slice(tape.parameter(up_), 1, 0, a)),
        tape.parameter(up_bias_));
    return add(output, scale(y, scale_));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    return {detail::named("adapter_down.weight", down_),
            detail::named("adapter_down.bias", down_bias_), detail::named("adapter_up.weight", up_),
            detail::named("adapter_up.bias", up_bias_)};
  }
  std::string merge_reason() const { return "the adapter behind a sublayer is not linear"; }

 private:
  std::size_t block_;
  T scale_;
  const BasicNormSite<T>* norm_;
  std::shared_ptr<const noah::Widths> widths_;
  BasicParameter<T> down_, down_bias_, up_, up_bias_;
};

/// Prompts of every block, behind the class token; those of the block before are taken away.
template <std::floating_point T>
class BasicNOAHPrompts final : public AdapterPart<T>, public StackAdapterInterface<T> {
 public:
  using Scalar = T;
  /// Uniform in ±√(6 / (3 patch + width)).
  BasicNOAHPrompts(const NOAHConfig& config, std::vector<std::string> blocks, Index width,
                   Index patch, Index in_front, std::shared_ptr<const noah::Widths> widths,
                   InitContext<T>& context)
      : blocks_(std::move(blocks)), in_front_(in_front), widths_(std::move(widths)) {
    const double bound = std::sqrt(6.0 / static_cast<double>(3 * patch + width));
    for (std::size_t b = 0; b < blocks_.size(); ++b)
      tables_.push_back(detail::fresh<T>(context, {config.max_prompt, width},
                                         [bound](TorchGenerator& g, BasicTensor<T>& t) {
                                           g.uniform(t.data(), t.size(), -bound, bound);
                                         }));
  }
  void begin(BasicTape<T>&) const override {}
  void leave(Index, const BasicVar<T>&) const override {}
  BasicVar<T> enter(Index layer, const BasicVar<T>& x) const override {
    const auto block = static_cast<std::size_t>(layer);
    const auto* context = x.tape().template context<ForwardContext>();
    const Index batch = context != nullptr ? context->batch : 1;
    const Index old = block == 0 ? 0 : widths_->prompt.at(block - 1),
                now = widths_->prompt.at(block);
    if (old == 0 && now == 0) return x;
    const auto y =
        with(reshape(x, {batch, x.rows() / batch, x.cols()}), tables_[block], now, in_front_, old);
    return reshape(y, {y.rows(), y.cols()});
  }
  /// The first `count` prompts behind the first `in_front` tokens, in place of `old` tokens there.
  /// x: [batch, tokens, width].
  static BasicVar<T> with(const BasicVar<T>& x, const BasicParameter<T>& prompts, Index count,
                          Index in_front, Index old) {
    const Index batch = x.dim(0), width = x.dim(2), rest = in_front + old;
    std::vector<BasicVar<T>> parts;
    if (in_front > 0) parts.push_back(slice(x, 1, 0, in_front));
    if (count > 0)
      parts.push_back(
          broadcast_to(reshape(slice(x.tape().parameter(prompts), 0, 0, count), {1, count, width}),
                       {batch, count, width}));
    parts.push_back(slice(x, 1, rest, x.dim(1) - rest));
    return concat_along(1, parts);
  }
  std::vector<AdapterTensor<T>> tensors() const override {
    std::vector<AdapterTensor<T>> list;
    for (std::size_t b = 0; b < blocks_.size(); ++b)
      list.push_back(detail::named(blocks_[b] + ".prompts", tables_[b]));
    return list;
  }

 private:
  std::vector<std::string> blocks_;
  Index in_front_;
  std::shared_ptr<const noah::Widths> widths_;
  std::vector<BasicParameter<T>> tables_;
};

/// The supernet in training: widths of its own for each step, uniform among the choices.
template <std::floating_point T>
class NOAHProcedure final : public Procedure<T> {
 public:
  NOAHProcedure(const NOAHConfig& config, std::shared_ptr<noah::Widths> widths, bool prompts)
      : config_(config), widths_(std::move(widths)), fixed_(*widths_), prompts_(prompts) {}
  void before_step(const StepInfo& info) override {
    TorchGenerator generator(
        splitmix64(config_.seed * kSplitMixStep + static_cast<std::uint64_t>(info.step)));
    const auto draw = [&](std::vector<Index>& list, Index most) {
      for (Index& w : list)
        w = std::min(most, config_.choices[static_cast<std::size_t>(
                               generator.below(std::ssize(config_.choices)))]);
    };
    if (prompts_) draw(widths_->prompt, config_.max_prompt);
    draw(widths_->rank, config_.max_rank);
    draw(widths_->adapter, config_.max_adapter);
  }
  void after_step(const StepInfo&) override { *widths_ = fixed_; }

 private:
  NOAHConfig config_;
  std::shared_ptr<noah::Widths> widths_;
  noah::Widths fixed_;
  bool prompts_;
};

/// NOAH, neural prompt search: in every block prompts, LoRA on the target modules and an adapter
/// behind the feed-forward part, each allocated at its largest width; a width w means its first w
/// tokens, ranks or hidden units. With `supernet` each step draws widths; noah::search finds the
/// best ones, and the lists of the configuration hold them.
///
/// Trained: max_prompt d + Σ max_rank (in + out) + 2 max_adapter d + max_adapter + d a block, of
/// which noah::parameters act. The identity at the start without prompts (B = 0, U = 0). Only the
/// LoRA would merge, so it does not. Source: Zhang et al. 2022 (arXiv:2206.04673), section 3.
/// Deviations: N is the block's last norm, frozen; an optimiser with momentum moves entries on that
/// no width of a step reaches. Tensors: prompts [max_prompt, d], lora_A.weight, lora_B.weight,
/// adapter_down.{weight, bias}, adapter_up.{weight, bias}.
template <std::floating_point T>
struct NOAHMethod {
  using Scalar = T;
  using Config = NOAHConfig;
  static MethodInfo info() {
    return {.peft_type = "NOAH",
            .name = "NOAH",
            .family = "selection",
            .paper = "arXiv:2206.04673",
            .sites = "linear, hidden, blocks",
            .parameters =
                "; max_rank (in + out), and max_prompt d + 2 max_adapter d + "
                "max_adapter + d a block",
            .mergeable = false,
            .in_peft = false};
  }
  static std::shared_ptr<noah::Widths> widths(const Config& config, Index blocks,
                                              InitContext<T>& context) {
    return context.shared.object("noah.widths", [&] {
      return noah::Widths{config.widths("prompt", config.prompt, config.max_prompt, blocks),
                          config.widths("r", config.rank, config.max_rank, blocks),
                          config.widths("adapter", config.adapter, config.max_adapter, blocks)};
    });
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    if (site.layer < 0 || site.layer >= site.layers) return nullptr;
    if (site.conv.groups > 1 || !site.expert.parameter.empty())
      throw ValueError(
          concat("NOAH at ", site.path, ", a grouped convolution or an expert, is not supported"));
    return linear_part(BasicNOAHLoRA<T>(config, site.in_features, site.out_features, site.layer,
                                        widths(config, site.layers, context), context));
  }
  template <class Set>
  static void finish(const Config& config, Set& set, BasicSiteTable<T>& table,
                     InitContext<T>& context) {
    if (table.info.encoder_decoder)
      throw ValueError("NOAH: models with several stacks of blocks are not supported");
    if (config.supernet && config.choices.empty()) throw ValueError("NOAH: no choices");
    const auto acting = widths(config, table.info.layers, context);
    std::vector<std::string> blocks;
    for (auto* site : table.hidden) {
      if (site->role() == HiddenRole::block) blocks.push_back(site->path());
      if (site->role() != HiddenRole::feed_forward) continue;
      const Index block = layer_of(site->path());
      const BasicNormSite<T>* norm = nullptr;
      for (const auto* n : table.norm)
        if (layer_of(n->path()) == block && n->norm().weight.size() == site->width()) norm = n;
      auto part =
          hidden_part(BasicNOAHAdapter<T>(config, site->width(), block, norm, acting, context));
      site->adapters().push_back({set.name(), part});
      set.add_part(site->path(), part);
    }
    const bool prompts = table.stack != nullptr && table.prompt != nullptr &&
                         table.prompt->in_front() == 1 && config.max_prompt > 0;
    if (prompts) {
      const bool patches = !table.linear.empty() && !table.linear.front()->conv.kernel.empty();
      const Index patch = patches ? table.linear.front()->conv.kernel_elements() : 0;
      auto stack = std::make_shared<BasicNOAHPrompts<T>>(
          config, blocks, table.info.hidden_size, patch, table.prompt->in_front(), acting, context);
      table.stack->adapters().push_back({set.name(), stack});
      set.add_part("", stack);
    } else if (std::any_of(acting->prompt.begin(), acting->prompt.end(),
                           [](Index n) { return n > 0; })) {
      throw ValueError(concat("NOAH: prompts need a model with a class token, ",
                              table.info.architecture, " has none; set prompt to 0"));
    }
    if (config.supernet)
      set.set_procedure(std::make_unique<NOAHProcedure<T>>(config, acting, prompts));
  }
};

}  // namespace graft::inline v0_1
