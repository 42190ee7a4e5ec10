#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/low_rank/adalora.hpp"
#include "graft/adapters/low_rank/own_adamw.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/target_match.hpp"

namespace graft::inline v0_1 {

/// Configuration of TriAdaptLoRA. The procedure moves what grew with AdamW at the run's rate.
struct TriAdaptLoRAConfig {
  Index init_rank = 1;
  Index reference_rank = 8;               ///< mean over the adapted layers at the end
  std::optional<Index> growth = {};       ///< incre_rank_num; nothing: half of the reference rank
  Index warmup = 0;                       ///< init_warmup: steps without growth
  Index interval = 1;                     ///< incre_interval: steps between growths
  std::optional<Index> total_steps = {};  ///< total_step; nothing: those of the run
  std::string growth_model = "linear";    ///< rank_growth_model: linear or non-linear
  std::string normaliser = "blocks";      ///< of a core's norm: blocks, rank or sqrt_params
  double alpha = 8;
  double dropout = 0;
  double orthogonality_weight = 0.5;  ///< orth_reg_weight
  double weight_decay = 0;            ///< of what grew
  Index seed = 0;                     ///< of what grew
  TargetModules target_modules = {};
  Selection select = {};  ///< rank_pattern holds the sizes of a layer's blocks

  static constexpr const char* kPeftType = "TRIADAPTLORA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("init_rank", init_rank);
    v("reference_rank", reference_rank);
    v("incre_rank_num", growth);
    v("init_warmup", warmup);
    v("incre_interval", interval);
    v("total_step", total_steps);
    v("rank_growth_model", growth_model);
    v("normaliser", normaliser);
    v("lora_alpha", alpha);
    v("lora_dropout", dropout);
    v("orth_reg_weight", orthogonality_weight);
    optional_field(v, "weight_decay", weight_decay, 0.0);
    optional_field(v, "seed", seed, Index{0});
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for settings out of range or unknown words.
  void validate() const {
    if (init_rank < 1 || reference_rank < 1 || block() < 1 || interval < 1)
      throw ValueError(concat("TriAdaptLoRA: init_rank ", init_rank, ", reference_rank ",
                              reference_rank, ", incre_rank_num ", block(), ", incre_interval ",
                              interval, ", expected at least 1"));
    if (growth_model != "linear" && growth_model != "non-linear")
      throw ValueError(concat("TriAdaptLoRA: rank_growth_model '", growth_model,
                              "', expected linear or non-linear"));
    if (normaliser != "blocks" && normaliser != "rank" && normaliser != "sqrt_params")
      throw ValueError(concat("TriAdaptLoRA: normaliser '", normaliser,
                              "', expected blocks, rank or sqrt_params"));
  }
  /// Size of the blocks that are added.
  Index block() const { return growth.value_or(std::max<Index>(1, reference_rank / 2)); }
  /// Modules to grow with a gap to the target rank, at step t of T.
  Index modules_to_grow(Index gap, Index t, Index total, Index modules) const {
    const double share =
        static_cast<double>(t - warmup) / static_cast<double>(std::max<Index>(1, total - warmup));
    const double missing = static_cast<double>(gap);
    const double k =
        growth_model == "linear" ? missing * share : std::exp(share * std::log(missing));
    return std::clamp<Index>(static_cast<Index>(std::floor(k)), 1, modules);
  }
};

/// TriAdaptLoRA: y = base(x) + c · ((drop(x) Aᵀ) Cᵀ) Bᵀ, c = alpha / (R + 10⁻⁵), with a square core
/// C = L + U of growing block triangles.
///
/// Block i of size q brings A: [q, in], B: [out, q] ~ N(0, 0.02²), row: [q, R_i] and col: [R_i, q],
/// zero, R_i the rank up to it; row goes into the rows of the block and col into its columns, both
/// from zero, so that the block's own square gets both. Trained: R (in + out) + 2 Σ q R_i. The
/// identity at the start; merges. Loss: orth_reg_weight · mean over layers of ‖A Aᵀ − I‖_F and
/// ‖Bᵀ B − I‖_F. Source: Liang et al. 2025 (arXiv:2501.08008). A published implementation starts
/// new blocks with zeros alone, which no gradient leaves; here A and B of a block are random.
/// Tensors: lora_A.k, lora_B.k, lora_C_row.k, lora_C_col.k.
template <std::floating_point T>
class BasicTriAdaptLoRA {
 public:
  using Scalar = T;
  using Config = TriAdaptLoRAConfig;

  BasicTriAdaptLoRA(const TriAdaptLoRAConfig& config, const LinearSiteInfo<T>& site,
                    InitContext<T>& context)
      : in_(site.in_features),
        out_(site.out_features),
        alpha_((config.validate(), config.alpha)),
        dropout_(config.dropout),
        regulariser_(config.orthogonality_weight /
                     static_cast<double>(2 * std::max<std::size_t>(1, site.all_sites.size()))) {
    std::vector<Index> sizes{config.init_rank};
    if (const auto pattern = pattern_value(config.select.rank_pattern, site.path))
      detail::read_config("rank_pattern", *pattern, sizes);
    for (const Index q : sizes) {
      if (q < 1)
        throw ValueError(concat("TriAdaptLoRA: a block of ", q, " in rank_pattern of ", site.path));
      const auto draw = [&](const Shape& shape) {
        return context.loading ? BasicTensor<T>::zeros(shape)
                               : detail::normal_tensor<T>(context.generator, shape, 0.02);
      };
      auto a = draw({q, in_});
      grow(std::move(a), draw({out_, q}));
    }
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicTriAdaptLoRA(const TriAdaptLoRAConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicTriAdaptLoRA(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  /// Adds a block with these factors and a core of zeros: A: [q, in], B: [out, q].
  void grow(BasicTensor<T> a, BasicTensor<T> b) {
    const Index q = a.rows(), whole = rank_ + q;
    blocks_.push_back({BasicParameter<T>(std::move(a)), BasicParameter<T>(std::move(b)),
                       BasicParameter<T>(BasicTensor<T>::zeros({q, whole})),
                       BasicParameter<T>(BasicTensor<T>::zeros({whole, q}))});
    rank_ = whole;
  }

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto a = matmul(core(tape), joined(tape, true));
    return linear_low_rank(base, x, graft::dropout(x, dropout_), a, joined(tape, false),
                           static_cast<T>(alpha_ / (static_cast<double>(rank_) + 1e-5)));
  }
  /// C: [R, R].
  BasicVar<T> core(BasicTape<T>& tape) const {
    std::vector<BasicVar<T>> values;
    std::vector<Index> places;
    Index first = 0;
    for (const auto& block : blocks_) {
      const Index q = block.a.shape()[0], end = first + q;
      values.push_back(reshape(tape.parameter(block.row), {q * end}));
      for (Index i = first; i < end; ++i)
        for (Index j = 0; j < end; ++j) places.push_back(i * rank_ + j);
      values.push_back(reshape(tape.parameter(block.col), {end * q}));
      for (Index i = 0; i < end; ++i)
        for (Index j = first; j < end; ++j) places.push_back(i * rank_ + j);
      first = end;
    }
    return scatter(concat_along(0, values), places, {rank_, rank_});
  }
  /// ‖C‖_F over the number of blocks, the rank, or the root of the number of the core's values.
  double core_norm(const std::string& normaliser) const {
    BasicTape<T> tape({.gradients = false});
    double square = 0, values = 0;
    const auto whole = core(tape).value();
    for (const T c : whole) square += static_cast<double>(c) * static_cast<double>(c);
    for (const auto& block : blocks_)
      values += static_cast<double>(block.row.size() + block.col.size());
    return std::sqrt(square) / (normaliser == "blocks" ? static_cast<double>(blocks_.size())
                                : normaliser == "rank" ? static_cast<double>(rank_)
                                                       : std::sqrt(values));
  }
  BasicVar<T> auxiliary_loss(BasicTape<T>& tape) const {
    if (regulariser_ == 0) return {};
    return scale(detail::orthogonality(joined(tape, true), joined(tape, false), false),
                 static_cast<T>(regulariser_));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    for (auto& [name, parameter] : named()) list.push_back(detail::named(name, parameter));
    return list;
  }
  /// As many blocks as a file holds, of its sizes.
  void before_load(const CheckpointShapes& shapes) {
    const auto sizes = detail::ranks_in_file(shapes);
    if (sizes.empty()) return;
    const std::size_t same = detail::blocks_as_in_file(blocks_, sizes);
    blocks_.erase(blocks_.begin() + static_cast<std::ptrdiff_t>(same), blocks_.end());
    rank_ = 0;
    for (std::size_t k = 0; k < same; ++k) rank_ += sizes[k];
    for (std::size_t k = same; k < sizes.size(); ++k)
      grow(BasicTensor<T>::zeros({sizes[k], in_}), BasicTensor<T>::zeros({out_, sizes[k]}));
  }

  Index rank() const { return rank_; }
  Index in_features() const { return in_; }
  Index out_features() const { return out_; }
  std::vector<Index> block_sizes() const {
    std::vector<Index> sizes;
    for (const auto& block : blocks_) sizes.push_back(block.a.shape()[0]);
    return sizes;
  }
  /// The tensors of all blocks from the number `first` on, with their names.
  std::vector<std::pair<std::string, BasicParameter<T>>> named(std::size_t first = 0) const {
    std::vector<std::pair<std::string, BasicParameter<T>>> list;
    for (std::size_t k = first; k < blocks_.size(); ++k) {
      const auto& block = blocks_[k];
      list.emplace_back(concat("lora_A.", k), block.a);
      list.emplace_back(concat("lora_B.", k), block.b);
      list.emplace_back(concat("lora_C_row.", k), block.row);
      list.emplace_back(concat("lora_C_col.", k), block.col);
    }
    return list;
  }

 private:
  struct Block {
    BasicParameter<T> a, b, row, col;
  };
  BasicVar<T> joined(BasicTape<T>& tape, bool a) const {
    std::vector<BasicVar<T>> parts;
    for (const auto& block : blocks_) parts.push_back(tape.parameter(a ? block.a : block.b));
    return concat_along(a ? 0 : 1, parts);
  }

  Index in_, out_, rank_ = 0;
  double alpha_, dropout_, regulariser_;
  std::vector<Block> blocks_;
};

/// Which modules grow: those whose core's norm rose the most since the last time.
template <std::floating_point T>
class TriAdaptGrowth {
 public:
  TriAdaptGrowth(const TriAdaptLoRAConfig& config, std::vector<BasicTriAdaptLoRA<T>*> parts)
      : config_(config), parts_(std::move(parts)), norms_(parts_.size(), 0.0) {}

  /// Numbers of the modules that grow after step t (from 1) of T; none between evaluations.
  std::vector<std::size_t> after_step(Index t, Index total) {
    scores_.clear();
    Index ranks = 0;
    for (const auto* part : parts_) ranks += part->rank();
    const Index modules = static_cast<Index>(parts_.size()),
                gap = config_.reference_rank * modules - ranks;
    if (gap <= 0 || t <= config_.warmup || t % config_.interval != 0) return {};
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      const double now = parts_[i]->core_norm(config_.normaliser);
      scores_.push_back(now - norms_[i]);
      norms_[i] = now;
    }
    auto sorted = scores_;
    std::sort(sorted.begin(), sorted.end(), std::greater<>());
    const double threshold =
        sorted[static_cast<std::size_t>(config_.modules_to_grow(gap, t, total, modules) - 1)];
    std::vector<std::size_t> grown;
    for (std::size_t i = 0; i < parts_.size(); ++i)
      if (scores_[i] >= threshold) grown.push_back(i);
    return grown;
  }
  /// Of the last evaluation; empty if the last step had none.
  const std::vector<double>& scores() const { return scores_; }
  const std::vector<BasicTriAdaptLoRA<T>*>& parts() const { return parts_; }
  std::vector<double>& norms() { return norms_; }
  const std::vector<double>& norms() const { return norms_; }

 private:
  TriAdaptLoRAConfig config_;
  std::vector<BasicTriAdaptLoRA<T>*> parts_;
  std::vector<double> norms_, scores_;
};

/// Growth while a run goes on; blocks that came with it are moved here.
template <std::floating_point T>
class TriAdaptLoRAProcedure final : public Procedure<T> {
 public:
  TriAdaptLoRAProcedure(const TriAdaptLoRAConfig& config, std::vector<std::string> paths,
                        std::vector<BasicTriAdaptLoRA<T>*> parts)
      : config_(config), paths_(std::move(paths)), growth_(config, std::move(parts)) {}

  void after_step(const StepInfo& info) override {
    grown_.step(info.learning_rate, config_.weight_decay);
    const Index total = config_.total_steps.value_or(info.total_steps), q = config_.block();
    for (const std::size_t i : growth_.after_step(info.step, total)) {
      auto& part = *growth_.parts()[i];
      const auto number = part.block_sizes().size();
      const auto draw = [&](std::uint64_t side, const Shape& shape) {
        return detail::seeded_factor<T>(static_cast<std::uint64_t>(config_.seed), i,
                                        2 * number + side, shape);
      };
      part.grow(draw(0, {q, part.in_features()}), draw(1, {part.out_features(), q}));
      for (const auto& [name, parameter] : part.named(number))
        grown_.add(paths_[i] + "." + name, parameter);
    }
  }
  void update_config(ConfigValue::Map& map) const override {
    ConfigValue::Map pattern;
    for (std::size_t i = 0; i < paths_.size(); ++i) {
      ConfigValue::List list;
      for (const Index q : growth_.parts()[i]->block_sizes()) list.emplace_back(q);
      if (list.size() > 1) pattern[paths_[i]] = std::move(list);
    }
    if (!pattern.empty()) map["rank_pattern"] = std::move(pattern);
  }
  std::map<std::string, std::vector<double>> state() const override {
    detail::ProcedureState all;
    grown_.keep(all);
    all["norms"] = growth_.norms();
    return all;
  }
  void set_state(const std::map<std::string, std::vector<double>>& all) override {
    grown_.restore(all, detail::with_paths<T>(paths_, growth_.parts()));
    if (const auto it = all.find("norms"); it != all.end() && it->second.size() == paths_.size())
      growth_.norms() = it->second;
  }

 private:
  TriAdaptLoRAConfig config_;
  std::vector<std::string> paths_;
  TriAdaptGrowth<T> growth_;
  detail::GrownParameters<T> grown_;
};

template <std::floating_point T>
struct TriAdaptLoRAMethod {
  using Scalar = T;
  using Config = TriAdaptLoRAConfig;
  static MethodInfo info() {
    return {.peft_type = "TRIADAPTLORA",
            .name = "TriAdaptLoRA",
            .family = "low_rank",
            .paper = "arXiv:2501.08008",
            .sites = "linear",
            .parameters = "R (in + out) + 2 R^2, R = init_rank; more when it grows",
            .in_peft = false};
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    return linear_part(BasicTriAdaptLoRA<T>(config, site, context));
  }
  static std::unique_ptr<Procedure<T>> procedure(const Config& config,
                                                 const std::vector<PlacedPart<T>>& parts) {
    std::vector<std::string> paths;
    std::vector<BasicTriAdaptLoRA<T>*> list;
    for (const auto& placed : parts)
      if (auto* part = method_of<BasicTriAdaptLoRA<T>>(placed.part.get())) {
        paths.push_back(placed.path);
        list.push_back(part);
      }
    return std::make_unique<TriAdaptLoRAProcedure<T>>(config, std::move(paths), std::move(list));
  }
};

using TriAdaptLoRA = BasicTriAdaptLoRA<float>;

}  // namespace graft::inline v0_1
