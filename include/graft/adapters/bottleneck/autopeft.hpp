#pragma once

#include <cmath>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/bottleneck/mam.hpp"
#include "graft/adapters/bottleneck/pfeiffer.hpp"
#include "graft/config.hpp"

namespace graft::inline v0_1 {

/// Configuration of AutoPEFT: which blocks get modules, and the sizes of these; 0: none.
struct AutoPEFTConfig {
  std::vector<Index> layers = {};  ///< a gene for each block, 1 = modules; empty: all have them
  Index serial = 12;               ///< width of the serial adapter
  Index parallel = 48;             ///< width of the parallel adapter
  Index prefix = 12;               ///< keys and values before those of the text
  double scaling = 4;              ///< of the parallel adapter
  std::string non_linearity = "relu";
  /// What the search chooses sizes from.
  std::vector<Index> sizes = {0, 1, 3, 6, 12, 24, 48, 96, 192, 384, 768};
  Selection select = {};

  static constexpr const char* kPeftType = "AUTOPEFT";

  template <class Visitor>
  void fields(Visitor& v) {
    v("layers", layers);
    v("serial", serial);
    v("parallel", parallel);
    v("prefix", prefix);
    v("scaling", scaling);
    v("non_linearity", non_linearity);
    v("sizes", sizes);
    select.fields(v);
  }
  /// @throws ValueError for sizes below zero, a gene that is neither 0 nor 1, or an unknown
  /// activation.
  void validate() const;
  bool has(Index layer) const {
    return layers.empty() || (layer >= 0 && layer < static_cast<Index>(layers.size()) &&
                              layers[static_cast<std::size_t>(layer)] != 0);
  }
};

/// The search of AutoPEFT: many genes, two aims.
namespace autopeft {

/// n_on (2 d D_SA + D_SA + d + 2 d D_PA + D_PA + d + 2 d L_PT), n_on the blocks with modules;
/// modules of size 0 add nothing.
GRAFT_KERNEL Index parameters(const AutoPEFTConfig& config, Index blocks, Index hidden_size);

/// True for those that no other one dominates: none has a score at least as high with at most as
/// many parameters, and is better in one of both.
GRAFT_KERNEL std::vector<char> pareto(const std::vector<double>& scores,
                                      const std::vector<Index>& parameters);

/// Random configurations first, then changes of those that are not dominated: ask with `next`,
/// train and evaluate, answer with `tell`. Stands for the Gaussian process of the paper.
class Search {
 public:
  Search(AutoPEFTConfig base, Index blocks, Index hidden_size, Index initial = 100,
         std::uint64_t seed = 0);
  AutoPEFTConfig next();
  void tell(AutoPEFTConfig config, double score) {
    counts_.push_back(parameters(config, blocks_, hidden_size_));
    scores_.push_back(score);
    seen_.push_back(std::move(config));
  }
  /// Those of the configurations so far that none dominates.
  std::vector<AutoPEFTConfig> front() const {
    std::vector<AutoPEFTConfig> list;
    for (const auto i : best()) list.push_back(seen_[i]);
    return list;
  }

 private:
  std::size_t pick(std::size_t count) {
    return static_cast<std::size_t>(generator_.below(static_cast<Index>(count)));
  }
  std::vector<std::size_t> best() const;

  AutoPEFTConfig base_;
  Index blocks_, hidden_size_, initial_;
  TorchGenerator generator_;
  std::vector<AutoPEFTConfig> seen_;
  std::vector<double> scores_;
  std::vector<Index> counts_;
};

}  // namespace autopeft

/// The adapters of one feed-forward part: a parallel one, then a serial one on the sum.
template <std::floating_point T>
class BasicAutoPEFT {
 public:
  using Scalar = T;

  BasicAutoPEFT(const AutoPEFTConfig& config, const HiddenSiteInfo<T>& site,
                InitContext<T>& context) {
    if (config.serial > 0) {
      PfeifferConfig serial;
      serial.adapter_dim = config.serial;
      serial.non_linearity = config.non_linearity;
      serial_.emplace(serial, site, context);
    }
    if (config.parallel > 0) {
      ParallelAdapterConfig parallel;
      parallel.adapter_dim = config.parallel;
      parallel.scaling = config.scaling;
      parallel.non_linearity = config.non_linearity;
      parallel_.emplace(ParallelAdapterMethod<T>::make(parallel, site.width, site.width, context));
    }
  }
  BasicVar<T> apply(const BasicVar<T>& input, const BasicVar<T>& output,
                    const BasicVar<T>& residual) const {
    auto y = output;
    if (parallel_) y = parallel_->apply(input, y, residual);
    return serial_ ? serial_->apply(input, y, residual) : y;
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    if (serial_) list = detail::below("serial.", serial_->tensors());
    if (parallel_)
      for (auto& t : detail::below("parallel.", parallel_->tensors())) list.push_back(std::move(t));
    return list;
  }
  std::string merge_reason() const { return "a bottleneck adapter is not linear"; }

 private:
  std::optional<BasicPfeiffer<T>> serial_;
  std::optional<BasicParallelAdapter<T>> parallel_;
};

/// Keys and values of one attention before those of the text: [prefix, 2 width], keys first.
template <std::floating_point T>
class BasicAutoPEFTPrefix final : public AttentionPart<T> {
 public:
  BasicAutoPEFTPrefix(Index tokens, const AttentionSiteInfo<T>& site, InitContext<T>& context)
      : values_(detail::fresh<T>(
            context, {tokens, 2 * site.kv_heads * site.head_dim},
            [](TorchGenerator& g, BasicTensor<T>& t) { g.normal(t.data(), t.size(), 0, 1); })) {}
  void before(AttentionCall<T>& call) const override {
    detail::put_prefix("AutoPEFT", call, call.q.tape().parameter(values_));
  }
  std::vector<AdapterTensor<T>> tensors() const override {
    return {detail::named("prefix", values_)};
  }

 private:
  BasicParameter<T> values_;
};

/// AutoPEFT: in the chosen blocks a Pfeiffer adapter and a scaled parallel adapter at the
/// feed-forward part and a prefix in the attention, each of one size everywhere or absent.
/// autopeft::Search and autopeft::pareto look for the choice.
///
/// Trained: autopeft::parameters, with d the width of keys for the prefix. Not the identity at the
/// start where there is a prefix; not mergeable. Source: Zhou et al. 2024 (arXiv:2301.12132),
/// section 3. Deviations: prefixes are trained as they are, without a network that makes them; the
/// search is by chance and by changes of the best in place of a Gaussian process. Tensors:
/// serial.adapter_down, …, parallel.adapter_down, …, prefix [l, 2 width].
template <std::floating_point T>
struct AutoPEFTMethod {
  using Scalar = T;
  using Config = AutoPEFTConfig;
  static constexpr bool kByRole = true;
  static MethodInfo info() {
    return {.peft_type = "AUTOPEFT",
            .name = "AutoPEFT",
            .family = "bottleneck",
            .paper = "arXiv:2301.12132",
            .sites = "attention, hidden",
            .parameters = "; prefix, and 2 d r + r + d, r = serial and parallel",
            .mergeable = false,
            .in_peft = false,
            .identity_at_init = false};
  }
  static std::shared_ptr<HiddenPart<T>> hidden(const Config& config, const HiddenSiteInfo<T>& site,
                                               InitContext<T>& context) {
    if (site.role != HiddenRole::feed_forward || !config.has(site.layer) ||
        (config.serial == 0 && config.parallel == 0))
      return nullptr;
    return hidden_part(BasicAutoPEFT<T>(config, site, context));
  }
  static std::shared_ptr<AttentionPart<T>> attention(const Config& config,
                                                     const AttentionSiteInfo<T>& site,
                                                     InitContext<T>& context) {
    if (config.prefix == 0 || !config.has(site.layer)) return nullptr;
    return std::make_shared<BasicAutoPEFTPrefix<T>>(config.prefix, site, context);
  }
};

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/adapters/bottleneck/impl/autopeft_impl.hpp"
#endif
