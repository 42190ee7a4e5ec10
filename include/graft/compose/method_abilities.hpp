#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "graft/compose/combine.hpp"
#include "graft/compose/method_registry.hpp"
#include "graft/layers/quantized_linear.hpp"

namespace graft {

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

/// What a method can do, found out by trying it on layers of its own, with its default
/// configuration.
struct MethodAbilities {
  bool linear = false, conv = false, embedding = false, norm = false;  ///< it goes there
  bool merge = false;      ///< the merged layer computes the same
  bool unmerge = false;    ///< the weight comes back bit for bit
  bool disable = false;    ///< switched off, the frozen layer's bits come out
  bool several = false;    ///< two adapters of it on one layer, both active
  bool rows = false;       ///< each row of a batch with an adapter of its own, or none
  bool weighted = false;   ///< weighted combination with others
  bool quantised = false;  ///< on a base that stays quantised
  bool tied = false;       ///< on an embedding whose table the output layer shares
  bool rank_pattern = false, layers = false, modules_to_save = false;  ///< fields of the config
};

namespace detail {

/// A model of one layer or table for trying methods on.
class AbilityProbe {
 public:
  static constexpr Index kWidth = 256, kRows = 3;

  AbilityProbe(const MethodRegistry<float>& registry, const MethodEntry<float>& entry)
      : registry_(&registry), entry_(&entry) {
    TorchGenerator generator(3);
    weight_ = Tensor::empty({kWidth, kWidth});
    generator.normal(weight_.data(), weight_.size(), 0.0, 0.1);
    auto bias = Tensor::empty({kWidth});
    generator.normal(bias.data(), bias.size(), 0.0, 0.1);
    x_ = Tensor::empty({kRows, kWidth});
    generator.normal(x_.data(), x_.size(), 0.0, 1.0);
    linear_ = LinearSite("layers.0.proj", DenseLinear(weight_, bias));
    norm_.weight = Tensor::ones({kWidth});
    norm_.bias = Tensor::zeros({kWidth});
    norm_.rms = false;
  }

  MethodAbilities run() {
    MethodAbilities a;
    const auto has = [&](const char* field) { return entry_->defaults.contains(field); };
    a.rank_pattern = has("rank_pattern");
    a.layers = has("layers_to_transform");
    a.modules_to_save = has("modules_to_save");
    a.linear = attaches([](SiteTable& t, AbilityProbe& p) { t.linear = {&p.linear_}; });
    a.conv = attaches([](SiteTable& t, AbilityProbe& p) {
      p.conv_ = LinearSite("layers.0.proj", DenseLinear(p.weight_));
      p.conv_.conv = {.kernel = {2, 2}, .in_channels = kWidth / 4, .groups = 1};
      t.linear = {&p.conv_};
    });
    a.embedding = attaches([](SiteTable& t, AbilityProbe& p) {
      p.embedding_ = EmbeddingSite("layers.0.proj", EmbeddingTable(p.weight_));
      t.embedding = {&p.embedding_};
    });
    a.tied = attaches([](SiteTable& t, AbilityProbe& p) {
      p.embedding_ = EmbeddingSite("layers.0.proj", EmbeddingTable(p.weight_));
      p.linear_two_ = LinearSite("head", DenseLinear(p.embedding_.table().dense()));
      t.info.output_layers = {"head"};
      t.embedding = {&p.embedding_};
      t.linear = {&p.linear_two_};
    });
    a.norm = attaches([](SiteTable& t, AbilityProbe& p) {
      p.norm_site_ = NormSite("layers.0.proj", p.norm_);
      t.norm = {&p.norm_site_};
    });
    if (a.linear)
      holds([&] {
        try_linear(a);
        return true;
      });
    return a;
  }

 private:
  ConfigValue::Map config() const {
    auto map = entry_->defaults;
    map["target_modules"] = ConfigValue::List{ConfigValue("proj")};
    if (map.contains("init_weights") && map["init_weights"].get_if<bool>() != nullptr)
      map["init_weights"] = false;
    if (map.contains("token_indices")) map["token_indices"] = ConfigValue::List{ConfigValue(1)};
    return map;
  }
  template <class Place>
  bool attaches(Place&& place) {
    try {
      SiteTable table;
      table.info.layers = 1;
      table.info.hidden_size = kWidth;
      place(table, *this);
      BasicAdapterModel<float> model(table, *registry_);
      TorchGenerator generator(5);
      model.add("a", config(), generator);
      return !model.at("a").parameters().empty();
    } catch (const Error&) {
      return false;
    }
  }
  static bool close(const Tensor& a, const Tensor& b) {
    float error = 0, size = 0;
    for (Index i = 0; i < a.size(); ++i) {
      error = std::max(error, std::abs(a[i] - b[i]));
      size = std::max(size, std::abs(b[i]));
    }
    return error <= 1e-3F * size;
  }
  static bool equal(const Tensor& a, const Tensor& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end());
  }
  Tensor output(const LinearSite& site, std::vector<std::string> rows = {}) const {
    Tape tape({.gradients = false, .training = false});
    auto context = std::make_shared<ForwardContext>();
    context->batch = kRows;
    context->task_ids.assign(static_cast<std::size_t>(kRows), 0);
    context->row_adapters = std::move(rows);
    tape.set_context(context);
    return site(tape.constant(x_)).value().clone();
  }
  /// Gives an adapter values that are no identity.
  static void disturb(AdapterSet<float>& set, std::uint64_t seed) {
    TorchGenerator generator(seed);
    for (const auto& p : set.parameters()) {
      auto value = p.value().clone();
      auto noise = Tensor::empty(value.shape());
      generator.normal(noise.data(), noise.size(), 0.0, 0.02);
      for (Index i = 0; i < value.size(); ++i) value[i] += noise[i];
      auto target = p;
      target.assign(std::move(value));
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
  void try_linear(MethodAbilities& a) {
    SiteTable table;
    table.info.layers = 1;
    table.info.hidden_size = kWidth;
    table.linear = {&linear_};
    BasicAdapterModel<float> model(table, *registry_);
    TorchGenerator generator(7);
    disturb(model.add("a", config(), generator), 11);
    const auto frozen = linear_.base().dense_weight().clone();
    const auto with_a = output(linear_);
    Tensor base;
    {
      const auto off = model.disabled();
      base = output(linear_);
    }
    {
      Tape tape({.gradients = false, .training = false});
      a.disable = equal(base, linear(linear_.base(), tape.constant(x_)).value());
    }
    a.merge = holds([&] {
      model.merge();
      return close(output(linear_), with_a);
    });
    if (model.merged()) {
      model.unmerge();
      a.unmerge = equal(frozen, linear_.base().dense_weight()) && equal(with_a, output(linear_));
    }
    a.several = holds([&] {
      disturb(model.add("b", config(), generator), 13);
      model.activate({"a", "b"});
      const auto both = output(linear_);
      model.activate({"b"});
      const auto with_b = output(linear_);
      return !close(both, with_a) && !close(both, with_b);
    });
    a.rows = holds([&] {
      model.activate({"b"});
      const auto with_b = output(linear_);
      const auto mixed = output(linear_, {"a", "__base__", "b"});
      for (Index j = 0; j < kWidth; ++j) {
        const float tolerance = 1e-4F * (1 + std::abs(mixed(0, j)));
        if (std::abs(mixed(0, j) - with_a(0, j)) > tolerance ||
            std::abs(mixed(1, j) - base(1, j)) > tolerance ||
            std::abs(mixed(2, j) - with_b(2, j)) > tolerance)
          return false;
      }
      return true;
    });
    if (registry_->contains("LORA"))
      a.weighted = holds([&] {
        add_weighted_adapter(model, {"a", "b"}, {0.5, -0.25}, "c");
        return true;
      });
    a.quantised = holds([&] {
      // Blocks of Q8_0: a scale in half precision, 2⁻⁷, and 32 codes.
      std::vector<std::int8_t> blocks(static_cast<std::size_t>(kWidth * kWidth / 32 * 34));
      for (std::size_t i = 0; i < blocks.size(); ++i)
        blocks[i] = i % 34 == 0 ? std::int8_t{0}
                    : i % 34 == 1
                        ? std::int8_t{0x20}
                        : static_cast<std::int8_t>(static_cast<int>(i * i * 37 % 255) - 127);
      LinearSite site("layers.0.proj",
                      QuantizedLinear(quant::Format::q8_0, blocks.data(), kWidth, kWidth));
      SiteTable own;
      own.info = table.info;
      own.linear = {&site};
      BasicAdapterModel<float> on_blocks(own, *registry_);
      TorchGenerator other(5);
      on_blocks.add("a", config(), other);
      output(site);
      return site.base().as<QuantizedLinear>() != nullptr;
    });
  }
  const MethodRegistry<float>* registry_;
  const MethodEntry<float>* entry_;
  Tensor weight_, x_;
  BasicNorm<float> norm_;
  LinearSite linear_, linear_two_, conv_;
  EmbeddingSite embedding_;
  NormSite norm_site_;
};

}  // namespace detail

inline MethodAbilities abilities_of(const MethodRegistry<float>& registry,
                                    const MethodEntry<float>& entry) {
  return detail::AbilityProbe(registry, entry).run();
}

}  // namespace graft
