#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/bottleneck/bottleneck.hpp"
#include "graft/adapters/layer_scores.hpp"
#include "graft/adapters/target_match.hpp"

namespace graft::inline v0_1 {

/// Configuration of DAS.
struct DASConfig {
  Index rank = 64;              ///< r, width of the adapters
  Index num_skip = 2;           ///< blocks that do not run, at most all but one
  double learning_rate = 0.05;  ///< of the scores
  Index num_candidates = 3;     ///< sets that are tried out at a time
  double search = 0.5;          ///< share of the steps that search
  double warmup = 0.25;         ///< share of the steps before scores move
  Index interval = 0;           ///< steps from one measurement to the next; 0: 1/150 of all
  std::uint64_t seed = 0;       ///< of what is drawn
  std::vector<Index> skipped_layers = {};  ///< found by the search

  static constexpr const char* kPeftType = "DAS";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("num_skip", num_skip);
    v("learning_rate", learning_rate);
    v("num_candidates", num_candidates);
    optional_field(v, "search", search, 0.5);
    optional_field(v, "warmup", warmup, 0.25);
    optional_field(v, "interval", interval, 0);
    optional_field(v, "seed", seed, 0);
    v("skipped_layers", skipped_layers);
  }
  /// @throws ValueError for a number out of its range.
  void validate() const {
    if (rank < 1 || num_skip < 0 || num_candidates < 1 || interval < 0)
      throw ValueError(concat("DAS: r ", rank, ", num_skip ", num_skip, ", num_candidates ",
                              num_candidates, ", interval ", interval));
    if (!(search >= 0 && search <= 1 && warmup >= 0 && warmup <= 1))
      throw ValueError(concat("DAS: search ", search, ", warmup ", warmup, ", expected [0, 1]"));
  }
};

/// Which blocks run; shared by all parts of an adapter.
struct SkippedBlocks {
  std::vector<char> skipped;
  bool has(Index block) const {
    return block < static_cast<Index>(skipped.size()) &&
           skipped[static_cast<std::size_t>(block)] != 0;
  }
  bool any() const { return std::find(skipped.begin(), skipped.end(), char{1}) != skipped.end(); }
  void set(const std::vector<Index>& blocks) {
    std::fill(skipped.begin(), skipped.end(), char{0});
    for (const Index b : blocks) skipped.at(static_cast<std::size_t>(b)) = 1;
  }
};

/// The adapter of one block: A(N(x)) beside the block, or in its place. N: the block's own norm.
template <std::floating_point T>
class BasicDAS {
 public:
  using Scalar = T;

  BasicDAS(const DASConfig& config, Index width, InitContext<T>& context)
      : module_(width, width, config.rank, "identity", BasicBottleneck<T>::Start::zero_up,
                context) {}
  /// Outlives the adapter; null: none.
  void set_norm(const BasicNormSite<T>* norm) { norm_ = norm; }
  BasicVar<T> branch(const BasicVar<T>& x) const {
    return module_(norm_ != nullptr ? (*norm_)(x) : x);
  }
  BasicVar<T> apply(const BasicVar<T>& input, const BasicVar<T>& output, const BasicVar<T>&) const {
    return add(output, branch(input));
  }
  std::vector<AdapterTensor<T>> tensors() const { return module_.tensors(); }
  std::string merge_reason() const { return "the adapter reads a normalised hidden state"; }

 private:
  BasicBottleneck<T> module_;
  const BasicNormSite<T>* norm_ = nullptr;
};

/// Puts the bypass in the place of the blocks that are left out.
template <std::floating_point T>
class BasicDASStack final : public AdapterPart<T>, public StackAdapterInterface<T> {
 public:
  BasicDASStack(std::shared_ptr<const SkippedBlocks> skipped,
                std::vector<const BasicDAS<T>*> blocks)
      : skipped_(std::move(skipped)), blocks_(std::move(blocks)) {}
  void begin(BasicTape<T>&) const override {}
  BasicVar<T> enter(Index, const BasicVar<T>& x) const override { return x; }
  void leave(Index, const BasicVar<T>&) const override {}
  bool runs_blocks() const override { return skipped_->any(); }
  BasicVar<T> run(const BasicVar<T>& x, const StackBlocks<T>& blocks) const override {
    auto h = x;
    for (Index l = 0; l < blocks.count; ++l)
      h = skipped_->has(l) ? add(h, blocks_.at(static_cast<std::size_t>(l))->branch(h))
                           : blocks.block(l, h, blocks.tokens);
    return h;
  }
  std::vector<AdapterTensor<T>> tensors() const override { return {}; }

 private:
  std::shared_ptr<const SkippedBlocks> skipped_;
  std::vector<const BasicDAS<T>*> blocks_;
};

/// DAS in training: searches which blocks the task can do without, then leaves them out.
template <std::floating_point T>
class DASProcedure final : public Procedure<T> {
 public:
  DASProcedure(const DASConfig& config, std::shared_ptr<SkippedBlocks> skipped)
      : config_(config),
        skipped_(std::move(skipped)),
        scores_(static_cast<Index>(skipped_->skipped.size())),
        final_(config.skipped_layers) {}

  const LayerScores& scores() const { return scores_; }
  Index skips() const { return std::min(config_.num_skip, scores_.layers() - 1); }

  void before_step(const StepInfo& info) override {
    const double total = static_cast<double>(info.total_steps),
                 step = static_cast<double>(info.step);
    if (!final_.empty() || skips() < 1) return;
    if (step > config_.search * total) {
      final_ = scores_.most_dispensable(skips());
      skipped_->set(final_);
      return;
    }
    const Index interval =
        config_.interval > 0 ? config_.interval : std::max<Index>(1, info.total_steps / 150);
    if (info.loss && step > config_.warmup * total && info.step % interval == 0) {
      std::vector<std::vector<Index>> sets;
      std::vector<double> losses;
      for (Index c = 0; c < config_.num_candidates; ++c) {
        sets.push_back(draw(info.step, 1 + static_cast<std::uint64_t>(c)));
        skipped_->set(sets.back());
        losses.push_back(info.loss());
      }
      scores_.update(sets, losses, config_.learning_rate);
    }
    skipped_->set(draw(info.step, 0));
  }
  void after_step(const StepInfo&) override { skipped_->set(final_); }
  void update_config(ConfigValue::Map& map) const override {
    ConfigValue::List list;
    for (const Index block : final_) list.emplace_back(block);
    map["skipped_layers"] = list;
  }
  std::map<std::string, std::vector<double>> state() const override {
    return {{"scores", scores_.scores()},
            {"skipped", std::vector<double>(final_.begin(), final_.end())}};
  }
  void set_state(const std::map<std::string, std::vector<double>>& all) override {
    scores_ = LayerScores(scores_.layers());
    if (const auto it = all.find("scores"); it != all.end()) scores_.set_scores(it->second);
    final_ = config_.skipped_layers;
    if (const auto it = all.find("skipped"); it != all.end()) {
      final_.clear();
      for (const double block : it->second) final_.push_back(static_cast<Index>(block));
    }
    skipped_->set(final_);
  }

 private:
  std::vector<Index> draw(Index step, std::uint64_t candidate) const {
    return LayerScores::sample(scores_.dispensable(), skips(), config_.seed + candidate,
                               static_cast<std::uint64_t>(step));
  }

  DASConfig config_;
  std::shared_ptr<SkippedBlocks> skipped_;
  LayerScores scores_;
  std::vector<Index> final_;
};

/// DAS, dynamic architecture skipping: every block F has a linear bottleneck that reads the block's
/// first norm, F(x) + A(N(x)); blocks that the task can do without are not run, x + A(N(x)).
///
///     A(z) = (z Dᵀ + b_D) Uᵀ + b_U
///
/// D: [r, d], U: [d, r]; trained a block: 2 d r + r + d. A new adapter runs all blocks and is the
/// identity (U = 0). In the first half of a run each step leaves out `num_skip` blocks drawn with
/// weights σ(s), and after a warm-up the losses of `num_candidates` such sets move the scores s
/// (LayerScores); then the blocks with the largest scores are left out for good, and files name
/// them in `skipped_layers`. Not mergeable. Source: Wu et al. 2023 (arXiv:2309.01479), sections 3.2
/// and 3.3. Deviations: the losses are those of the step's own batch; adapters of the blocks that
/// are left out and of those that are not are the same. Tensors: adapter_down.{weight, bias},
/// adapter_up.{weight, bias} of each block.
template <std::floating_point T>
struct DASMethod {
  using Scalar = T;
  using Config = DASConfig;
  static constexpr bool kByRole = true;
  static MethodInfo info() {
    return {.peft_type = "DAS",
            .name = "DAS",
            .family = "bottleneck",
            .paper = "arXiv:2309.01479",
            .sites = "hidden, blocks",
            .parameters = "2 d r + r + d",
            .mergeable = false,
            .in_peft = false};
  }
  static std::shared_ptr<HiddenPart<T>> hidden(const Config& config, const HiddenSiteInfo<T>& site,
                                               InitContext<T>& context) {
    if (site.role != HiddenRole::block) return nullptr;
    return hidden_part(BasicDAS<T>(config, site.width, context));
  }
  template <class Set>
  static void finish(const Config& config, Set& set, BasicSiteTable<T>& table, InitContext<T>&) {
    if (table.stack == nullptr)
      throw ValueError(concat("DAS: the blocks of the model (", table.info.architecture,
                              ") are no stack that adapters can enter"));
    std::vector<const BasicDAS<T>*> blocks;
    for (const auto& placed : set.parts()) {
      auto* method = method_of<BasicDAS<T>>(placed.part.get());
      if (method == nullptr) continue;
      for (const auto* norm : table.norm)
        if (layer_of(norm->path()) == static_cast<Index>(blocks.size()) &&
            norm->norm().weight.size() == table.info.hidden_size) {
          method->set_norm(norm);
          break;
        }
      blocks.push_back(method);
    }
    auto skipped = std::make_shared<SkippedBlocks>();
    skipped->skipped.assign(blocks.size(), 0);
    for (const Index block : config.skipped_layers)
      if (block < 0 || block >= static_cast<Index>(blocks.size()))
        throw ValueError(concat("DAS: skipped_layers names block ", block, " of ", blocks.size()));
    skipped->set(config.skipped_layers);
    auto stack = std::make_shared<BasicDASStack<T>>(skipped, std::move(blocks));
    table.stack->adapters().push_back({set.name(), stack});
    set.add_part("", stack);
    set.set_procedure(std::make_unique<DASProcedure<T>>(config, std::move(skipped)));
  }
};

}  // namespace graft::inline v0_1
