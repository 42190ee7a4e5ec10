#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/compose/combine.hpp"
#include "graft/compose/method_registry.hpp"
#include "graft/layers/quantized_linear.hpp"

namespace graft::inline v0_1 {

/// Every tuner of Hugging Face PEFT 0.21, by `peft_type`.
inline constexpr std::array<std::string_view, 45> kPeftTuners{"LORA",
                                                              "ADALORA",
                                                              "ADAMSS",
                                                              "BOFT",
                                                              "IA3",
                                                              "BEFT",
                                                              "LILY",
                                                              "LOHA",
                                                              "LOKR",
                                                              "OFT",
                                                              "POLY",
                                                              "LN_TUNING",
                                                              "VERA",
                                                              "FROD",
                                                              "PVERA",
                                                              "FOURIERFT",
                                                              "GLORA",
                                                              "XLORA",
                                                              "HRA",
                                                              "VBLORA",
                                                              "UNILORA",
                                                              "MISS",
                                                              "RANDLORA",
                                                              "ROAD",
                                                              "TRAINABLE_TOKENS",
                                                              "HIRA",
                                                              "SHIRA",
                                                              "C3A",
                                                              "WAVEFT",
                                                              "OSF",
                                                              "DELORA",
                                                              "GRALORA",
                                                              "TINYLORA",
                                                              "PSOFT",
                                                              "PEANUT",
                                                              "SUPERTUNING",
                                                              "DEFT",
                                                              "ADAPTION_PROMPT",
                                                              "PROMPT_TUNING",
                                                              "MULTITASK_PROMPT_TUNING",
                                                              "P_TUNING",
                                                              "PREFIX_TUNING",
                                                              "CPT",
                                                              "CARTRIDGE",
                                                              "SHADOW"};

/// What a method can do, found out by trying it: on a layer of its own, or on a small language
/// model where it needs more.
struct MethodAbilities {
  bool linear = false, conv = false, embedding = false, norm = false;  ///< it goes there
  bool merge = false;       ///< the merged layer computes the same
  bool unmerge = false;     ///< the weight comes back bit for bit
  bool disable = false;     ///< switched off, the frozen layer's bits come out
  bool several = false;     ///< two adapters of it on one layer, both active
  bool rows = false;        ///< each row of a batch with an adapter of its own, or none
  bool weighted = false;    ///< weighted combination with others
  bool quantised = false;   ///< on a base that stays quantised
  bool tied = false;        ///< on an embedding whose table the output layer shares
  bool low_memory = false;  ///< loading draws no values first: those of the file are the only ones
  bool rank_pattern = false, layers = false, modules_to_save = false;  ///< fields of the config
};

namespace detail {

inline constexpr Index kProbeWidth = 256, kProbeRows = 3;

}  // namespace detail

/// Something with sites for trying methods on: input and frozen weights are its own.
class AbilityStage {
 public:
  virtual ~AbilityStage() = default;
  virtual SiteTable& sites() = 0;
  /// The result for three rows; row i runs the adapter rows[i], none: the active ones. One number
  /// of results for each row.
  virtual Var run(Tape& tape, const std::vector<std::string>& rows) const = 0;
};
/// Makes a small language model, with frozen weights that stay quantised or not.
using AbilityModel = std::function<std::unique_ptr<AbilityStage>(bool quantised)>;

namespace detail {

inline Tensor probe_tensor(const Shape& shape, std::uint64_t seed, double scale) {
  TorchGenerator generator(seed);
  auto t = Tensor::empty(shape);
  generator.normal(t.data(), t.size(), 0.0, scale);
  return t;
}

/// One linear layer.
class LinearAbilityStage final : public AbilityStage {
 public:
  explicit LinearAbilityStage(bool quantised)
      : x_(probe_tensor({kProbeRows, kProbeWidth}, 2, 1)),
        layer_("layers.0.proj", base(quantised)) {
    table_.info.layers = 1;
    table_.info.hidden_size = kProbeWidth;
    table_.linear = {&layer_};
  }
  SiteTable& sites() override { return table_; }
  Var run(Tape& tape, const std::vector<std::string>& rows) const override {
    auto context = std::make_shared<ForwardContext>();
    context->batch = kProbeRows;
    context->task_ids.assign(static_cast<std::size_t>(kProbeRows), 0);
    context->row_adapters = rows;
    tape.set_context(context);
    return layer_(tape.constant(x_));
  }

 private:
  AnyLinear base(bool quantised) {
    if (!quantised)
      return DenseLinear(probe_tensor({kProbeWidth, kProbeWidth}, 3, 0.1),
                         probe_tensor({kProbeWidth}, 4, 0.1));
    // Blocks of Q8_0: a scale in half precision, 2⁻⁷, and 32 codes.
    blocks_.resize(static_cast<std::size_t>(kProbeWidth * kProbeWidth / 32 * 34));
    for (std::size_t i = 0; i < blocks_.size(); ++i)
      blocks_[i] = i % 34 == 0 ? std::int8_t{0}
                   : i % 34 == 1
                       ? std::int8_t{0x20}
                       : static_cast<std::int8_t>(static_cast<int>(i * i * 37 % 255) - 127);
    return QuantizedLinear(quant::Format::q8_0, blocks_.data(), kProbeWidth, kProbeWidth);
  }
  std::vector<std::int8_t> blocks_;
  Tensor x_;
  LinearSite layer_;
  SiteTable table_;
};

class AbilityProbe {
 public:
  AbilityProbe(const MethodRegistry<float>& registry, const MethodEntry<float>& entry,
               AbilityModel model)
      : registry_(&registry), entry_(&entry), model_(std::move(model)) {}

  MethodAbilities run() {
    MethodAbilities a;
    const auto has = [&](const char* field) { return entry_->defaults.contains(field); };
    a.rank_pattern = has("rank_pattern");
    a.layers = has("layers_to_transform");
    a.modules_to_save = has("modules_to_save");
    const auto weight = probe_tensor({kProbeWidth, kProbeWidth}, 3, 0.1);
    EmbeddingSite embedding;
    LinearSite linear;
    NormSite norm;
    a.linear = attaches([&](SiteTable& t) {
      linear = LinearSite("layers.0.proj", DenseLinear(weight));
      t.linear = {&linear};
    });
    a.conv = attaches([&](SiteTable& t) {
      linear = LinearSite("layers.0.proj", DenseLinear(weight));
      linear.conv = {.kernel = {2, 2}, .in_channels = kProbeWidth / 4, .groups = 1};
      t.linear = {&linear};
    });
    a.embedding = attaches([&](SiteTable& t) {
      embedding = EmbeddingSite("layers.0.proj", EmbeddingTable(weight));
      t.embedding = {&embedding};
    });
    a.tied = attaches([&](SiteTable& t) {
      embedding = EmbeddingSite("layers.0.proj", EmbeddingTable(weight));
      linear = LinearSite("head", DenseLinear(embedding.table().dense()));
      t.info.output_layers = {"head"};
      t.embedding = {&embedding};
      t.linear = {&linear};
    });
    a.norm = attaches([&](SiteTable& t) {
      BasicNorm<float> values;
      values.weight = Tensor::ones({kProbeWidth});
      values.bias = Tensor::zeros({kProbeWidth});
      values.rms = false;
      norm = NormSite("layers.0.proj", values);
      t.norm = {&norm};
    });
    on_layer_ = a.linear && !entry_->places.by_role && !entry_->experts;
    if (on_layer_ || model_) holds([&] { return try_stage(a); });
    return a;
  }

 private:
  std::unique_ptr<AbilityStage> stage(bool quantised) const {
    if (on_layer_) return std::make_unique<LinearAbilityStage>(quantised);
    return model_(quantised);
  }
  ConfigValue::Map config(bool single) const {
    auto map = entry_->example;
    if (single && map.contains("target_modules"))
      map["target_modules"] = ConfigValue::List{ConfigValue("proj")};
    if (map.contains("init_weights") && map["init_weights"].get_if<bool>() != nullptr)
      map["init_weights"] = false;
    if (entry_->experts)
      map["adapters"] = ConfigValue::Map{{"one", ConfigValue("")}, {"other", ConfigValue("")}};
    return map;
  }
  template <class Place>
  bool attaches(Place&& place) const {
    return holds([&] {
      SiteTable table;
      table.info.layers = 1;
      table.info.hidden_size = kProbeWidth;
      place(table);
      AdapterModel model(table, *registry_);
      TorchGenerator generator(5);
      model.add("a", config(true), generator);
      return !model.at("a").parameters().empty();
    });
  }
  static bool close(const Tensor& a, const Tensor& b, float tolerance = 1e-3F) {
    float error = 0, size = 0;
    for (Index i = 0; i < a.size(); ++i) {
      error = std::max(error, std::abs(a[i] - b[i]));
      size = std::max(size, std::abs(b[i]));
    }
    return error <= tolerance * size;
  }
  static bool equal(const Tensor& a, const Tensor& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end());
  }
  static Tensor output(const AbilityStage& stage, const std::vector<std::string>& rows = {}) {
    Tape tape({.gradients = false, .training = false});
    return stage.run(tape, rows).value().clone();
  }
  static Tensor row_of(const Tensor& y, Index row) {
    const Index each = y.size() / kProbeRows;
    auto part = Tensor::empty({each});
    std::copy_n(y.data() + row * each, each, part.data());
    return part;
  }
  static Tensor frozen(AbilityStage& stage) {
    const auto& t = stage.sites();
    return t.linear.front()->base().dense_weight().clone();
  }
  /// Gives an adapter values that are no identity.
  static void disturb(AdapterSet<float>& set, std::uint64_t seed) {
    for (const auto& p : set.parameters()) {
      auto value = p.value().clone();
      const auto noise = probe_tensor(value.shape(), seed++, 0.05);
      for (Index i = 0; i < value.size(); ++i) value[i] += noise[i];
      p.assign(std::move(value));
    }
    for (const auto& placed : set.parts()) placed.part->after_load();
  }
  template <class Try>
  static bool holds(Try&& attempt) {
    try {
      return attempt();
    } catch (const Error&) {
      return false;
    }
  }
  void add_experts(AdapterModel& model) const {
    if (!entry_->experts) return;
    TorchGenerator generator(3);
    auto lora = registry_->at("LORA").defaults;
    lora["init_lora_weights"] = false;
    model.add("one", lora, generator);
    model.add("other", lora, generator);
  }
  bool try_stage(MethodAbilities& a) const {
    const auto stage = this->stage(false);
    const auto untouched = output(*stage);
    AdapterModel model(stage->sites(), *registry_);
    add_experts(model);
    TorchGenerator generator(7);
    disturb(model.add("a", config(on_layer_), generator), 11);
    const auto weight = frozen(*stage);
    const auto with_a = output(*stage);
    Tensor base;
    {
      const auto off = model.disabled();
      base = output(*stage);
    }
    a.disable = close(base, untouched) && equal(output(*stage), with_a);
    a.merge = holds([&] {
      model.merge();
      return close(output(*stage), with_a);
    });
    if (model.merged()) {
      model.unmerge();
      a.unmerge = equal(weight, frozen(*stage)) && equal(with_a, output(*stage));
    }
    Tensor with_b;
    a.several = holds([&] {
      disturb(model.add("b", config(on_layer_), generator), 13);
      with_b = output(*stage);
      model.activate({"a", "b"});
      return !equal(with_b, with_a) && output(*stage).size() == with_a.size();
    });
    model.activate({"b"});
    a.rows = holds([&] {
      const auto mixed = output(*stage, {"a", "__base__", "b"});
      return close(row_of(mixed, 0), row_of(with_a, 0)) &&
             close(row_of(mixed, 1), row_of(base, 1)) && close(row_of(mixed, 2), row_of(with_b, 2));
    });
    if (registry_->contains("LORA"))
      a.weighted = holds([&] {
        add_weighted_adapter(model, {"a", "b"}, {0.5, -0.25}, "c");
        return true;
      });
    a.quantised = holds([&] {
      const auto blocks = this->stage(true);
      AdapterModel on_blocks(blocks->sites(), *registry_);
      add_experts(on_blocks);
      TorchGenerator other(5);
      on_blocks.add("a", config(on_layer_), other);
      output(*blocks);
      return blocks->sites().linear.front()->base().as<QuantizedLinear>() != nullptr;
    });
    a.low_memory = holds([&] {
      const auto fresh = this->stage(false);
      AdapterModel loaded(fresh->sites(), *registry_);
      add_experts(loaded);
      AdapterSet<float> set("l", entry_->info, config(on_layer_));
      SharedParameters<float> shared;
      TorchGenerator drawn(9), still(9);
      InitContext<float> context{drawn, shared, true, "l"};
      entry_->build(set, fresh->sites(), context);
      float one = 0, other = 0;
      drawn.normal(&one, 1, 0.0, 1.0);
      still.normal(&other, 1, 0.0, 1.0);
      return one == other;
    });
    return true;
  }

  const MethodRegistry<float>* registry_;
  const MethodEntry<float>* entry_;
  AbilityModel model_;
  bool on_layer_ = false;
};

}  // namespace detail

/// `model`: for methods that a layer alone is too little for; what they can do on it stays unknown
/// (false) without one.
inline MethodAbilities abilities_of(const MethodRegistry<float>& registry,
                                    const MethodEntry<float>& entry, AbilityModel model = {}) {
  return detail::AbilityProbe(registry, entry, std::move(model)).run();
}

}  // namespace graft::inline v0_1
