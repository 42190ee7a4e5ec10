#pragma once

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/io/json.hpp"
#include "graft/models/architecture.hpp"
#include "graft/models/bert.hpp"
#include "graft/models/gemma3.hpp"
#include "graft/models/gpt2.hpp"
#include "graft/models/llama.hpp"
#include "graft/models/t5.hpp"
#include "graft/models/vit.hpp"

namespace graft::inline v0_1::models {

namespace detail {

/// The activation `name`, which the field `key` gives.
inline kernels::Activation activation_of(const io::JsonView& config, const char* key,
                                         const std::string& name) {
  using kernels::Activation;
  if (name == "silu" || name == "swish") return Activation::silu;
  if (name == "gelu" || name == "gelu_python") return Activation::gelu;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh" || name == "gelu_fast" ||
      name == "gelu_accurate" || name == "gelu_python_tanh")
    return Activation::gelu_tanh;
  if (name == "quick_gelu") return Activation::quick_gelu;
  if (name == "relu") return Activation::relu;
  if (name == "tanh") return Activation::tanh;
  if (name == "sigmoid") return Activation::sigmoid;
  if (name == "linear") return Activation::identity;
  config.at(key).fail(concat("activation '", name, "' is not supported"));
}
inline kernels::Activation activation_named(const io::JsonView& config, const char* key,
                                            const char* otherwise) {
  return activation_of(config, key, config.string_or(key, otherwise));
}

/// The number `key`, if it is there. @throws IoError for one that is not finite or not above 0
inline double positive_or(const io::JsonView& json, const char* key, double otherwise) {
  const double value = json.number_or(key, otherwise);
  if (json.has(key) && !(std::isfinite(value) && value > 0))
    json.at(key).fail(concat("expected a finite number above 0, found ", value));
  return value;
}
/// The same for any finite number.
inline double finite_or(const io::JsonView& json, const char* key, double otherwise) {
  const double value = json.number_or(key, otherwise);
  if (json.has(key) && !std::isfinite(value))
    json.at(key).fail(concat("expected a finite number, found ", value));
  return value;
}

/// The integer `key`; `absent` where it is not there, nothing where it is null.
inline std::optional<Index> index_unless_null(const io::JsonView& json, const char* key,
                                              std::optional<Index> absent, Index lowest = 0) {
  if (!json.json().contains(key)) return absent;
  const auto found = json.find(key);
  if (!found) return std::nullopt;
  return static_cast<Index>(found->integer(lowest, 1 << 30));
}

/// Adds what `p`, an object of rotary settings in `config`, says to `rope`, whose
/// original_positions come before those of `p` where they are above 0.
/// @throws IoError for a type that is not known, or values that the type cannot have
inline void read_rope(const io::JsonView& p, const io::JsonView& config, RopeConfig& rope) {
  rope.theta = positive_or(p, "rope_theta", rope.theta);
  const char* key = p.has("rope_type") ? "rope_type" : "type";
  rope.type = p.string_or(key, "default");
  if (rope.type == "default") return;
  const bool yarn = rope.type == "yarn", longrope = rope.type == "longrope";
  if (!yarn && !longrope && rope.type != "linear" && rope.type != "dynamic" &&
      rope.type != "llama3")
    p.at(key).fail(concat("'", rope.type,
                          "' is not supported; default, linear, dynamic, llama3, yarn and longrope "
                          "are"));
  static constexpr const char* kPartial = "partial_rotary_factor";
  if (const auto& holder = p.has(kPartial) ? p : config; holder.number_or(kPartial, 1) != 1)
    holder.at(kPartial).fail("another number than 1 is not supported");
  if (!(rope.original_positions > 0))
    rope.original_positions =
        positive_or(p, "original_max_position_embeddings", rope.max_positions);
  if (rope.type != "linear" && !(rope.original_positions > 0))
    p.fail("neither original_max_position_embeddings nor max_position_embeddings is there");
  if (yarn && !(rope.theta > 1)) p.fail(concat("yarn with a rope_theta of ", rope.theta));
  rope.factor =
      positive_or(p, "factor", yarn || longrope ? rope.max_positions / rope.original_positions : 1);
  if (!(rope.factor > 0)) p.fail(concat("a factor of ", rope.factor));
  rope.low_frequency_factor = positive_or(p, "low_freq_factor", 1);
  rope.high_frequency_factor = positive_or(p, "high_freq_factor", 4);
  if (rope.type == "llama3" && !(rope.high_frequency_factor > rope.low_frequency_factor))
    p.fail(concat("a high_freq_factor of ", rope.high_frequency_factor,
                  ", expected one above the low_freq_factor, ", rope.low_frequency_factor));
  rope.fast_rotations = positive_or(p, "beta_fast", 32);
  rope.slow_rotations = positive_or(p, "beta_slow", 1);
  rope.truncate = p.boolean_or("truncate", true);
  double table_scale = 1;
  if (yarn) {
    const auto grown = [&](double m) {
      return rope.factor <= 1 ? 1 : 0.1 * m * std::log(rope.factor) + 1;
    };
    const double all = finite_or(p, "mscale_all_dim", 0), own = finite_or(p, "mscale", 0);
    table_scale = all != 0 && own != 0 ? grown(own) / grown(all) : grown(1);
  }
  if (longrope) {
    if (rope.factor > 1)
      table_scale = std::sqrt(1 + std::log(rope.factor) / std::log(rope.original_positions));
    const auto divisors = [&](const char* name) {
      const auto list = p.at(name);
      auto values = list.numbers();
      for (const double d : values)
        if (!(std::isfinite(d) && d > 0))
          list.fail(concat("expected finite numbers above 0, found ", d));
      return values;
    };
    rope.short_divisors = divisors("short_factor");
    rope.long_divisors = divisors("long_factor");
  }
  if (!std::isfinite(table_scale)) p.fail("its values give no finite attention_factor");
  rope.table_scale = finite_or(p, "attention_factor", table_scale);
}

/// Rotary settings of a config.json: transformers 5 keeps them in rope_parameters, older ones at
/// the top and in rope_scaling, which comes before rope_parameters where a file has both.
inline RopeConfig rope_config(const io::JsonView& config, Index dim) {
  RopeConfig rope;
  rope.dim = dim;
  rope.theta = positive_or(config, "rope_theta", 10000);
  rope.max_positions = finite_or(config, "max_position_embeddings", 0);
  rope.original_positions = positive_or(config, "original_max_position_embeddings", 0);
  auto settings = config.find("rope_scaling");
  if (!settings || settings->json().empty()) settings = config.find("rope_parameters");
  if (settings) read_rope(*settings, config, rope);
  return rope;
}

/// @throws IoError if the file says of what class the model is and no name ends in one of `known`;
/// names without "For", of bare models of other packages, are no heads
inline void check_class(const io::JsonView& json, std::initializer_list<std::string_view> known) {
  const auto names = json.strings_or("architectures", {});
  const bool bare = std::find(known.begin(), known.end(), "Model") != known.end();
  const auto fits = [&](const std::string& name) {
    return (bare && name.find("For") == name.npos) ||
           std::any_of(known.begin(), known.end(),
                       [&](std::string_view end) { return name.ends_with(end); });
  };
  if (!names.empty() && std::none_of(names.begin(), names.end(), fits))
    json.at("architectures").fail(concat("'", names.front(), "' is not supported"));
}
/// @throws IoError if the switch `key`, which changes what is computed, is on
inline void refuse(const io::JsonView& json, const char* key) {
  if (json.boolean_or(key, false)) json.at(key).fail("true is not supported");
}

/// What a classifier is to learn, as problem_type says.
inline Problem problem_of(const io::JsonView& json) {
  const std::string name = json.string_or("problem_type", "");
  if (name == "regression") return Problem::regression;
  if (name == "single_label_classification") return Problem::single_label;
  if (name == "multi_label_classification") return Problem::multi_label;
  if (!name.empty()) json.at("problem_type").fail(concat("'", name, "' is not supported"));
  return Problem::automatic;
}

/// Which layers have full attention, as layer_types says; empty: the file does not list the types.
inline std::vector<bool> full_layers(const io::JsonView& json) {
  std::vector<bool> full;
  const auto list = json.find("layer_types");
  if (!list) return full;
  for (const auto& type : list->elements()) {
    full.push_back(type.string() == "full_attention");
    if (!full.back() && type.string() != "sliding_attention")
      type.fail(concat("'", type.string(), "' is not supported"));
  }
  return full;
}

/// Number of classes of a head: id2label counts them, num_labels in older files; 2 if neither is
/// there. @throws IoError if they say that there is none
inline Index class_count(const io::JsonView& json) {
  if (const auto labels = json.find("id2label"); labels && labels->is_object()) {
    const auto members = labels->members();
    if (members.empty()) labels->fail("no class is named");
    return static_cast<Index>(members.size());
  }
  return static_cast<Index>(json.integer_or("num_labels", 2, 1, 1 << 30));
}
/// The head of a decoder: a classifier of `classes`; where these are 0, what the class of the model
/// says, a language model or a classifier.
/// @param language_model  end of the name of the class that has a language model's head
/// @param padding_id  where the file says nothing of it
/// @throws IoError for another class; the bare model of a base checkpoint is enough for `classes`
inline ClassifierHead decoder_head(const io::JsonView& json, std::string_view language_model,
                                   Index classes, std::optional<Index> padding_id = {}) {
  static constexpr std::string_view kClassifier = "ForSequenceClassification";
  ClassifierHead head;
  if (classes > 0)
    check_class(json, {language_model, kClassifier, "Model"});
  else
    check_class(json, {language_model, kClassifier});
  head.problem = problem_of(json);
  if (const auto id = index_unless_null(json, "pad_token_id", padding_id, -1))
    head.padding_id = static_cast<std::int32_t>(*id);
  head.classes = classes;
  if (classes > 0) return head;
  for (const auto& name : json.strings_or("architectures", {}))
    if (name.ends_with(kClassifier)) head.classes = class_count(json);
  return head;
}

/// Tokens that a sliding window has; 0: none, as null says.
inline Index window_of(const io::JsonView& json) {
  return index_unless_null(json, "sliding_window", 4096).value_or(0);
}

/// @param classes  of a classifier, see decoder_head
inline LlamaConfig llama_config(const io::JsonView& json, Index classes = 0) {
  LlamaConfig config;
  config.classifier = decoder_head(json, "ForCausalLM", classes);
  config.model_type = json.at("model_type").string();
  const auto size = [&](const char* key) {
    return static_cast<Index>(json.at(key).integer(1, 1 << 30));
  };
  config.vocabulary = size("vocab_size");
  config.hidden_size = size("hidden_size");
  config.intermediate_size = size("intermediate_size");
  config.layers = size("num_hidden_layers");
  config.heads = size("num_attention_heads");
  const Index kv_heads = config.model_type == "llama"     ? config.heads
                         : config.model_type == "mistral" ? 8
                                                          : 32;
  config.kv_heads =
      index_unless_null(json, "num_key_value_heads", kv_heads, 1).value_or(config.heads);
  config.head_norm = config.model_type == "qwen3";
  config.head_dim = static_cast<Index>(
      json.integer_or("head_dim", config.head_norm ? 128 : config.hidden_size / config.heads));
  config.max_positions =
      static_cast<Index>(json.integer_or("max_position_embeddings", 0, 0, 1 << 30));
  config.rms_norm_eps = json.number_or("rms_norm_eps", 1e-6);
  config.rope = rope_config(json, config.head_dim);
  config.tied_head = json.boolean_or("tie_word_embeddings", false);
  config.activation = activation_named(json, "hidden_act", "silu");
  const bool windows =
      config.model_type == "mistral" ||
      (config.model_type != "llama" && json.boolean_or("use_sliding_window", false));
  if (windows) config.window = window_of(json);
  if (windows && config.model_type != "mistral") {
    config.full_attention = full_layers(json);
    if (config.full_attention.empty()) {
      const Index first = static_cast<Index>(json.integer_or("max_window_layers", 28));
      for (Index l = 0; l < config.layers; ++l) config.full_attention.push_back(l < first);
    }
  }
  return config;
}

inline Index size_of(const io::JsonView& json, const char* key) {
  return static_cast<Index>(json.at(key).integer(1, 1 << 30));
}

inline Gpt2Config gpt2_config(const io::JsonView& json, Index classes = 0) {
  Gpt2Config config;
  config.classifier = decoder_head(json, "LMHeadModel", classes);
  refuse(json, "add_cross_attention");
  config.scale_scores = json.boolean_or("scale_attn_weights", true);
  config.scale_by_layer = json.boolean_or("scale_attn_by_inverse_layer_idx", false);
  config.tied_head = json.boolean_or("tie_word_embeddings", true);
  config.vocabulary = size_of(json, "vocab_size");
  config.hidden_size = size_of(json, "n_embd");
  config.intermediate_size = static_cast<Index>(json.integer_or("n_inner", 4 * config.hidden_size));
  config.layers = size_of(json, "n_layer");
  config.heads = size_of(json, "n_head");
  config.max_positions = size_of(json, "n_positions");
  config.norm_eps = json.number_or("layer_norm_epsilon", 1e-5);
  config.activation = activation_named(json, "activation_function", "gelu_new");
  return config;
}

inline BertConfig bert_config(const io::JsonView& json) {
  BertConfig config;
  refuse(json, "is_decoder");
  if (json.string_or("position_embedding_type", "absolute") != "absolute")
    json.at("position_embedding_type").fail("'absolute' is supported only");
  config.problem = problem_of(json);
  config.model_type = json.at("model_type").string();
  const bool distil = config.model_type == "distilbert";
  config.vocabulary = size_of(json, "vocab_size");
  config.hidden_size = size_of(json, distil ? "dim" : "hidden_size");
  config.intermediate_size = size_of(json, distil ? "hidden_dim" : "intermediate_size");
  config.layers = size_of(json, distil ? "n_layers" : "num_hidden_layers");
  config.heads = size_of(json, distil ? "n_heads" : "num_attention_heads");
  config.max_positions = size_of(json, "max_position_embeddings");
  config.token_types = distil ? 0 : static_cast<Index>(json.integer_or("type_vocab_size", 2));
  // null: no row is that of padding
  config.padding_id =
      index_unless_null(json, "pad_token_id", config.model_type == "roberta" ? 1 : 0, -1)
          .value_or(-1);
  config.norm_eps = json.number_or("layer_norm_eps", 1e-12);
  config.activation = activation_named(json, distil ? "activation" : "hidden_act", "gelu");
  for (const auto& name : json.strings_or("architectures", {})) {
    if (name.ends_with("ForSequenceClassification")) config.task = Task::sequence_classification;
    if (name.ends_with("ForTokenClassification")) config.task = Task::token_classification;
    if (name.ends_with("ForMaskedLM")) config.task = Task::masked_language;
  }
  config.tied_head = json.boolean_or("tie_word_embeddings", true);
  if (config.task == Task::sequence_classification || config.task == Task::token_classification)
    config.classes = class_count(json);
  return config;
}

inline VitConfig vit_config(const io::JsonView& json) {
  VitConfig config;
  config.image_size = size_of(json, "image_size");
  config.patch_size = size_of(json, "patch_size");
  config.problem = problem_of(json);
  config.channels = static_cast<Index>(json.integer_or("num_channels", 3));
  config.hidden_size = size_of(json, "hidden_size");
  config.intermediate_size = size_of(json, "intermediate_size");
  config.layers = size_of(json, "num_hidden_layers");
  config.heads = size_of(json, "num_attention_heads");
  config.norm_eps = json.number_or("layer_norm_eps", 1e-12);
  config.activation = activation_named(json, "hidden_act", "gelu");
  for (const auto& name : json.strings_or("architectures", {}))
    if (name.ends_with("ForImageClassification")) config.classes = class_count(json);
  return config;
}

/// @param head  of a classifier; null: what the class of the model says, a language model or a
/// classifier
inline T5Config t5_config(const io::JsonView& json, const HeadConfig* head = nullptr) {
  T5Config config;
  const auto is_class = [&](std::string_view end) {
    const auto names = json.strings_or("architectures", {});
    return std::any_of(names.begin(), names.end(),
                       [&](const std::string& name) { return name.ends_with(end); });
  };
  static constexpr std::string_view kTexts = "ForSequenceClassification",
                                    kTokens = "ForTokenClassification";
  if (head != nullptr) {
    check_class(json, {"ForConditionalGeneration", "WithLMHeadModel", kTexts, kTokens, "Model"});
    config.task = head->task;
    config.classes = head->classes;
  } else {
    check_class(json, {"ForConditionalGeneration", "WithLMHeadModel", kTexts, kTokens});
    if (is_class(kTokens)) config.task = Task::token_classification;
    if (is_class(kTexts) || is_class(kTokens)) config.classes = class_count(json);
  }
  config.problem = problem_of(json);
  config.vocabulary = size_of(json, "vocab_size");
  config.hidden_size = size_of(json, "d_model");
  config.head_dim = size_of(json, "d_kv");
  config.intermediate_size = size_of(json, "d_ff");
  config.encoder_layers = size_of(json, "num_layers");
  config.decoder_layers =
      static_cast<Index>(json.integer_or("num_decoder_layers", config.encoder_layers));
  config.heads = size_of(json, "num_heads");
  config.buckets = static_cast<Index>(json.integer_or("relative_attention_num_buckets", 32));
  config.max_distance = static_cast<Index>(json.integer_or("relative_attention_max_distance", 128));
  config.start_token = static_cast<std::int32_t>(json.integer_or("decoder_start_token_id", 0));
  config.padding_id = static_cast<std::int32_t>(json.integer_or("pad_token_id", 0));
  // Classifiers go by it; elsewhere it may be a list.
  if (const auto end = json.find("eos_token_id"); !end || !end->is_array())
    config.end_token = static_cast<std::int32_t>(json.integer_or("eos_token_id", 1));
  config.norm_eps = json.number_or("layer_norm_epsilon", 1e-6);
  config.scale_output =
      json.boolean_or("scale_decoder_outputs", json.boolean_or("tie_word_embeddings", true));
  const std::string projection = json.string_or("feed_forward_proj", "relu");
  config.gated = projection.starts_with("gated-");
  // "gated-gelu" means gelu_new.
  config.activation = projection == "gated-gelu"
                          ? kernels::Activation::gelu_tanh
                          : activation_of(json, "feed_forward_proj",
                                          config.gated ? projection.substr(6) : projection);
  return config;
}

/// One layer in `pattern` has full attention where the file does not list the types.
inline std::vector<bool> gemma_full_layers(Index layers, Index pattern) {
  std::vector<bool> full;
  for (Index l = 0; l < layers; ++l) full.push_back(pattern > 0 && (l + 1) % pattern == 0);
  return full;
}

inline Gemma3Config gemma3_config(const io::JsonView& json, Index classes = 0) {
  Gemma3Config config;
  config.classifier = decoder_head(json, "ForCausalLM", classes, 0);
  refuse(json, "use_bidirectional_attention");
  config.logit_cap = json.number_or("final_logit_softcapping", 0);
  config.tied_head = json.boolean_or("tie_word_embeddings", true);
  config.vocabulary = size_of(json, "vocab_size");
  config.hidden_size = size_of(json, "hidden_size");
  config.intermediate_size = size_of(json, "intermediate_size");
  config.layers = size_of(json, "num_hidden_layers");
  config.heads = size_of(json, "num_attention_heads");
  config.kv_heads = static_cast<Index>(json.integer_or("num_key_value_heads", 4, 1, 1 << 30));
  config.head_dim = static_cast<Index>(json.integer_or("head_dim", 256, 1, 1 << 30));
  config.max_positions =
      static_cast<Index>(json.integer_or("max_position_embeddings", 0, 0, 1 << 30));
  config.window = window_of(json);
  config.query_scalar = json.number_or("query_pre_attn_scalar", 256);
  config.rms_norm_eps = json.number_or("rms_norm_eps", 1e-6);
  config.activation = activation_named(json, "hidden_activation", "gelu_pytorch_tanh");
  config.full_attention = full_layers(json);
  if (config.full_attention.empty())
    config.full_attention = gemma_full_layers(
        config.layers, static_cast<Index>(json.integer_or("sliding_window_pattern", 6)));
  config.full_rope.dim = config.sliding_rope.dim = config.head_dim;
  config.full_rope.theta = positive_or(json, "rope_theta", 1e6);
  config.sliding_rope.theta = positive_or(json, "rope_local_base_freq", 1e4);
  for (auto* rope : {&config.full_rope, &config.sliding_rope}) {
    rope->max_positions = static_cast<double>(config.max_positions);
    rope->original_positions = 0;
  }
  const auto parameters = json.find("rope_parameters");
  if (parameters) {
    const auto read = [&](const char* key, RopeConfig& rope) {
      if (const auto p = parameters->find(key)) read_rope(*p, json, rope);
    };
    read("full_attention", config.full_rope);
    read("sliding_attention", config.sliding_rope);
  }
  if (const auto scaling = json.find("rope_scaling"); scaling && !scaling->json().empty()) {
    if (config.full_rope.type != "default")
      scaling->fail(concat("a rope_parameters.full_attention of type ", config.full_rope.type,
                           " is there beside it"));
    // transformers has a rope_type there, "default", which the older key `type` leaves as it is,
    // unless rope_parameters has settings of these layers without one.
    const auto full = parameters ? parameters->find("full_attention") : std::nullopt;
    if (scaling->has("rope_type") || (full && !full->has("rope_type")))
      read_rope(*scaling, json, config.full_rope);
    else
      config.full_rope.theta = positive_or(*scaling, "rope_theta", config.full_rope.theta);
  }
  // transformers looks for it beside the types of layers.
  config.full_rope.truncate = config.sliding_rope.truncate =
      !parameters || parameters->boolean_or("truncate", true);
  return config;
}

/// Rotary settings of a GGUF file; `rope` brings the default of theta. Angles are stretched by
/// linear, yarn, or a divisor for each frequency in the tensor rope_freqs.weight, which linear may
/// come on top of. A factor of 0 means, as in llama.cpp, that none is set.
/// @throws IoError for another kind, yarn and divisors at once, or values that they cannot have
inline void read_gguf_rope(const io::GgufFile& file, const std::string& architecture,
                           RopeConfig& rope) {
  const auto& m = file.metadata();
  const auto key = [&](const char* name) { return architecture + ".rope." + name; };
  if (const auto turned = m.get_u64(key("dimension_count"), static_cast<std::uint64_t>(rope.dim));
      static_cast<Index>(turned) != rope.dim)
    throw IoError(
        concat(file.name(), ": ", key("dimension_count"), " is ", turned, ", expected ", rope.dim));
  const auto fail = [&](const std::string& name, const auto& found, const char* expected) {
    throw IoError(concat(file.name(), ": ", name, " is ", found, ", expected ", expected));
  };
  const auto finite = [&](const char* name, double otherwise) {
    const double value = m.get_f32(key(name), static_cast<float>(otherwise));
    if (!std::isfinite(value)) fail(key(name), value, "a finite number");
    return value;
  };
  const auto positive = [&](const char* name, double otherwise) {
    const double value = finite(name, otherwise);
    if (!(value > 0)) fail(key(name), value, "a number above 0");
    return value;
  };
  rope.theta = positive("freq_base", rope.theta);
  const char* factor_key = m.has(key("scaling.factor")) ? "scaling.factor" : "scale_linear";
  double factor = finite(factor_key, 1);
  if (factor < 0) fail(key(factor_key), factor, "a number above 0");
  if (factor == 0) factor = 1;
  const std::string type = m.get_string(key("scaling.type"), factor == 1 ? "none" : "linear");
  if (type == "linear" || type == "yarn") {
    rope.type = type;
    rope.factor = factor;
  } else if (type != "none") {
    throw IoError(concat(file.name(), ": ", key("scaling.type"), " '", type,
                         "' is not supported; none, linear and yarn are"));
  }
  if (type == "yarn") {
    const auto whole = m.get_u64(architecture + ".context_length", 0);
    const auto original = m.get_u64(key("scaling.original_context_length"), whole);
    if (original == 0)
      fail(key("scaling.original_context_length"), original, "a number of tokens above 0");
    rope.original_positions = static_cast<double>(original);
    rope.fast_rotations = positive("scaling.yarn_beta_fast", 32);
    rope.slow_rotations = positive("scaling.yarn_beta_slow", 1);
    rope.table_scale = finite("scaling.yarn_attn_factor", finite("scaling.attn_factor", 1)) *
                       (rope.factor > 1 ? 0.1 * std::log(rope.factor) + 1 : 1.0);
  }
  if (const auto* divisors = file.find("rope_freqs.weight")) {
    if (type == "yarn")
      fail(key("scaling.type"), "yarn", "none or linear beside the tensor rope_freqs.weight");
    rope.type = "longrope";
    const auto values = io::to_f32(*divisors);
    rope.long_divisors.assign(values.begin(), values.end());
    for (double& d : rope.long_divisors) {
      if (!std::isfinite(d) || !(d > 0)) fail("rope_freqs.weight", d, "finite numbers above 0");
      d *= rope.factor;
    }
    rope.short_divisors = rope.long_divisors;
  }
}

inline bool gguf_ties_head(const io::GgufFile& file) {
  return file.find("output.weight") == nullptr;
}

inline Gemma3Config gemma3_config(const io::GgufFile& file) {
  const auto& m = file.metadata();
  const auto size = [&](const char* name) {
    return static_cast<Index>(m.get_u64(std::string("gemma3.") + name));
  };
  Gemma3Config config;
  config.hidden_size = size("embedding_length");
  config.intermediate_size = size("feed_forward_length");
  config.layers = size("block_count");
  config.heads = size("attention.head_count");
  config.kv_heads = size("attention.head_count_kv");
  config.head_dim = size("attention.key_length");
  config.max_positions = static_cast<Index>(m.get_u64("gemma3.context_length", 0));
  config.window = static_cast<Index>(m.get_u64("gemma3.attention.sliding_window", 0));
  config.query_scalar = static_cast<double>(config.head_dim);
  config.rms_norm_eps = m.get_f32("gemma3.attention.layer_norm_rms_epsilon", 1e-6F);
  config.norm_offset = 0;
  config.tied_head = gguf_ties_head(file);
  config.full_attention = gemma_full_layers(config.layers, 6);
  config.full_rope.dim = config.sliding_rope.dim = config.head_dim;
  config.full_rope.theta = 1e6;
  config.sliding_rope.theta = 1e4;
  read_gguf_rope(file, "gemma3", config.full_rope);
  config.vocabulary = file.at("token_embd.weight").rows();
  return config;
}

/// "model.layers.3.self_attn.q_proj.weight" -> "blk.3.attn_q.weight".
inline std::string gguf_name(const std::string& name, bool gemma = false) {
  static const std::pair<std::string_view, std::string_view> kTop[] = {
      {"model.embed_tokens", "token_embd"}, {"model.norm", "output_norm"}, {"lm_head", "output"}};
  for (const auto& [from, to] : kTop)
    if (name.starts_with(from)) return std::string(to) + name.substr(from.size());
  static constexpr std::string_view kLayers = "model.layers.";
  if (!name.starts_with(kLayers)) return name;
  const auto dot = name.find('.', kLayers.size());
  const std::string layer = name.substr(kLayers.size(), dot - kLayers.size());
  const std::string rest = name.substr(dot + 1);
  static const std::pair<std::string_view, std::string_view> kParts[] = {
      {"self_attn.q_proj", "attn_q"},          {"self_attn.k_proj", "attn_k"},
      {"self_attn.v_proj", "attn_v"},          {"self_attn.o_proj", "attn_output"},
      {"self_attn.q_norm", "attn_q_norm"},     {"self_attn.k_norm", "attn_k_norm"},
      {"mlp.gate_proj", "ffn_gate"},           {"mlp.up_proj", "ffn_up"},
      {"mlp.down_proj", "ffn_down"},           {"input_layernorm", "attn_norm"},
      {"post_attention_layernorm", "ffn_norm"}};
  static const std::pair<std::string_view, std::string_view> kGemma[] = {
      {"post_attention_layernorm", "post_attention_norm"},
      {"pre_feedforward_layernorm", "ffn_norm"},
      {"post_feedforward_layernorm", "post_ffw_norm"}};
  if (gemma)
    for (const auto& [from, to] : kGemma)
      if (rest.starts_with(from))
        return "blk." + layer + "." + std::string(to) + rest.substr(from.size());
  for (const auto& [from, to] : kParts)
    if (rest.starts_with(from))
      return "blk." + layer + "." + std::string(to) + rest.substr(from.size());
  return name;
}

inline LlamaConfig llama_config(const io::GgufFile& file, const std::string& architecture) {
  const auto& m = file.metadata();
  const auto key = [&](const char* name) { return architecture + "." + name; };
  LlamaConfig config;
  config.model_type = architecture;
  config.hidden_size = static_cast<Index>(m.get_u64(key("embedding_length")));
  config.intermediate_size = static_cast<Index>(m.get_u64(key("feed_forward_length")));
  config.layers = static_cast<Index>(m.get_u64(key("block_count")));
  config.heads = static_cast<Index>(m.get_u64(key("attention.head_count")));
  config.kv_heads = static_cast<Index>(
      m.get_u64(key("attention.head_count_kv"), static_cast<std::uint64_t>(config.heads)));
  if (config.heads == 0)
    throw IoError(concat(file.name(), ": ", key("attention.head_count"), " is 0"));
  config.head_dim = static_cast<Index>(m.get_u64(
      key("attention.key_length"), static_cast<std::uint64_t>(config.hidden_size / config.heads)));
  config.max_positions = static_cast<Index>(m.get_u64(key("context_length"), 0));
  config.rms_norm_eps = m.get_f32(key("attention.layer_norm_rms_epsilon"), 1e-6F);
  config.rope.dim = config.head_dim;
  read_gguf_rope(file, architecture, config.rope);
  config.tied_head = gguf_ties_head(file);
  config.head_norm = architecture == "qwen3";
  config.vocabulary = file.at("token_embd.weight").rows();
  return config;
}

/// config.json of a folder, with the architecture that it names.
struct FolderConfig {
  /// @throws ValueError for no folder; IoError that names the file and what is wrong
  explicit FolderConfig(const std::filesystem::path& path)
      : document(read(path)),
        json(document, (path / "config.json").string()),
        type(json.at("model_type").string()),
        architecture(find_architecture(type)) {}
  FolderConfig(const FolderConfig&) = delete;
  FolderConfig& operator=(const FolderConfig&) = delete;

  const io::Json document;
  const io::JsonView json;
  const std::string type;
  const Architecture* architecture;  ///< null: not supported

 private:
  static io::Json read(const std::filesystem::path& path) {
    if (!std::filesystem::is_directory(path))
      throw ValueError(concat(path.string(), ": no folder with config.json and safetensors"));
    return io::read_json(path / "config.json");
  }
};
/// @throws ValueError if there is no architecture, or one that does not fit
template <class Fits>
const Architecture& expect_architecture(const Architecture* found, const std::string& name,
                                        const std::filesystem::path& path, const Fits& fits) {
  if (found != nullptr && fits(*found)) return *found;
  throw ValueError(concat(path.string(), ": architecture '", name,
                          "' is not supported for this task; ", supported_types(fits)));
}
inline std::vector<std::string> prefixes(const Architecture& architecture) {
  return {std::string(architecture.body) + "."};
}

/// A decoder, null for another family. @param classes  of a classifier, see decoder_head
template <std::floating_point T>
std::unique_ptr<BasicCausalModel<T>> decoder(const Architecture& architecture,
                                             const io::JsonView& json,
                                             const BasicWeights<T>& weights, Index classes = 0) {
  if (architecture.family == Family::llama)
    return std::make_unique<BasicLlama<T>>(llama_config(json, classes), weights);
  if (architecture.family == Family::gemma3)
    return std::make_unique<BasicGemma3<T>>(gemma3_config(json, classes), weights);
  if (architecture.family == Family::gpt2)
    return std::make_unique<BasicGpt2<T>>(gpt2_config(json, classes), weights);
  return nullptr;
}

/// The decoder in a GGUF file. @param head  of a classifier; null: a language model
/// @param drawn  takes the paths of layers that were drawn
/// @throws ValueError for an architecture that is not supported
template <std::floating_point T>
std::unique_ptr<BasicCausalModel<T>> gguf_decoder(const std::filesystem::path& path,
                                                  const HeadConfig* head = nullptr,
                                                  std::vector<std::string>* drawn = nullptr) {
  auto file = std::make_shared<const io::GgufFile>(io::GgufFile::open(path));
  const std::string name = file->metadata().get_string("general.architecture");
  const auto* architecture = find_gguf_architecture(name);
  if (architecture == nullptr)
    throw ValueError(concat(path.string(), ": architecture '", name, "' is not supported"));
  const bool gemma = architecture->family == Family::gemma3;
  const auto rename = [gemma](const std::string& tensor) { return gguf_name(tensor, gemma); };
  const ClassifierHead classifier{head == nullptr ? 0 : head->classes};
  const auto build = [&](const BasicWeights<T>& weights,
                         auto config) -> std::unique_ptr<BasicCausalModel<T>> {
    config.classifier = classifier;
    if constexpr (std::is_same_v<decltype(config), Gemma3Config>)
      return std::make_unique<BasicGemma3<T>>(config, weights);
    else
      return std::make_unique<BasicLlama<T>>(config, weights);
  };
  const auto open = [&](auto config, const std::function<Index(const std::string&)>& head_rows) {
    const GgufWeights<T> weights(file, rename, head_rows);
    if (head == nullptr) return build(weights, config);
    const WeightsWithHead<T> with(weights, {"score"}, *head, false);
    auto model = build(with, config);
    if (drawn != nullptr) *drawn = with.drawn();
    return model;
  };
  std::unique_ptr<BasicCausalModel<T>> model;
  if (gemma) {
    model = open(gemma3_config(*file), [](const std::string&) -> Index { return 0; });
  } else {
    const auto config = llama_config(*file, name);
    const bool reordered = name == "llama";
    model = open(config, [rows = config.head_dim, reordered](const std::string& tensor) -> Index {
      return reordered && (tensor.find("self_attn.q_proj") != std::string::npos ||
                           tensor.find("self_attn.k_proj") != std::string::npos)
                 ? rows
                 : 0;
    });
  }
  // Metadata and rows that were copied need no memory any more.
  file->release();
  return model;
}

}  // namespace detail

/// Opens an encoder (BERT, RoBERTa, DistilBERT) from a Hugging Face folder with a head for a task.
/// Layers of the head that the file lacks, or has for another number of classes, are drawn; the
/// decoder of a masked language model that it lacks runs on the rows of the word embedding.
/// @param drawn  takes their paths
/// @throws IoError that names the file and what is wrong; ValueError for an architecture that is no
/// such encoder
template <std::floating_point T>
std::unique_ptr<BasicBert<T>> load_encoder(const std::filesystem::path& path,
                                           const HeadConfig& head,
                                           std::vector<std::string>* drawn = nullptr) {
  const detail::FolderConfig folder(path);
  const auto& architecture =
      detail::expect_architecture(folder.architecture, folder.type, path,
                                  [](const auto& one) { return one.family == Family::bert; });
  auto config = detail::bert_config(folder.json);
  config.task = head.task;
  config.classes = head.classes;
  const SafetensorsWeights<T> file(path, detail::prefixes(architecture));
  const auto masked = masked_head_paths(folder.type);
  config.tied_head = config.tied_head || !file.has(masked.decoder + ".weight");
  const WeightsWithHead<T> weights(
      file,
      {folder.type + ".pooler.dense", "pre_classifier", "classifier", "classifier.dense",
       "classifier.out_proj", masked.dense, masked.norm},
      head);
  auto model = std::make_unique<BasicBert<T>>(config, weights);
  if (drawn != nullptr) *drawn = weights.drawn();
  return model;
}

/// Opens T5 from a Hugging Face folder as a classifier of texts or of tokens, whose head is drawn
/// where the file lacks it or has it for another number of classes.
/// @param drawn  takes the paths of layers that were drawn
/// @throws IoError that names the file and what is wrong; ValueError for another architecture, or
/// no class
template <std::floating_point T>
std::unique_ptr<BasicT5<T>> load_t5_classifier(const std::filesystem::path& path,
                                               const HeadConfig& head,
                                               std::vector<std::string>* drawn = nullptr) {
  if (head.classes < 1) throw ValueError(concat("a classifier of ", head.classes, " classes"));
  const detail::FolderConfig folder(path);
  const auto& architecture =
      detail::expect_architecture(folder.architecture, folder.type, path,
                                  [](const auto& one) { return one.family == Family::t5; });
  const SafetensorsWeights<T> file(path, detail::prefixes(architecture));
  const WeightsWithHead<T> weights(
      file, {"classification_head.dense", "classification_head.out_proj", "classifier"}, head);
  auto model = std::make_unique<BasicT5<T>>(detail::t5_config(folder.json, &head), weights);
  if (drawn != nullptr) *drawn = weights.drawn();
  return model;
}

/// Opens a decoder (LLaMA, Mistral, Qwen2, Qwen3, Gemma 3, GPT-2 from a Hugging Face folder; LLaMA,
/// Qwen2, Qwen3, Gemma 3 from a GGUF file) as a classifier of rows; its head is drawn where the
/// file lacks it (that of a language model or of a bare one) or has it for another number of
/// classes.
/// @param drawn  takes the paths of layers that were drawn
/// @throws IoError that names the file and what is wrong; ValueError for another architecture, or
/// no class
template <std::floating_point T>
std::unique_ptr<BasicCausalModel<T>> load_decoder_classifier(
    const std::filesystem::path& path, const HeadConfig& head,
    std::vector<std::string>* drawn = nullptr) {
  if (head.classes < 1) throw ValueError(concat("a classifier of ", head.classes, " classes"));
  if (!std::filesystem::is_directory(path)) return detail::gguf_decoder<T>(path, &head, drawn);
  const detail::FolderConfig folder(path);
  const auto& architecture = detail::expect_architecture(
      folder.architecture, folder.type, path, [](const auto& one) { return one.is_decoder(); });
  const SafetensorsWeights<T> file(path, detail::prefixes(architecture));
  const WeightsWithHead<T> weights(file, {"score"}, head, false);
  auto model = detail::decoder<T>(architecture, folder.json, weights, head.classes);
  if (drawn != nullptr) *drawn = weights.drawn();
  return model;
}

/// Opens a vision transformer from a Hugging Face folder with a classifier, which is drawn where
/// the file lacks it or has it for another number of classes.
/// @param drawn  takes the paths of layers that were drawn
/// @throws IoError that names the file and what is wrong; ValueError for another architecture
template <std::floating_point T>
std::unique_ptr<BasicVit<T>> load_image_classifier(const std::filesystem::path& path,
                                                   const HeadConfig& head,
                                                   std::vector<std::string>* drawn = nullptr) {
  const detail::FolderConfig folder(path);
  const auto& architecture =
      detail::expect_architecture(folder.architecture, folder.type, path,
                                  [](const auto& one) { return one.family == Family::vit; });
  auto config = detail::vit_config(folder.json);
  config.classes = head.classes;
  const SafetensorsWeights<T> file(path, detail::prefixes(architecture));
  const WeightsWithHead<T> weights(file, {"classifier"}, head);
  auto model = std::make_unique<BasicVit<T>>(config, weights);
  if (drawn != nullptr) *drawn = weights.drawn();
  return model;
}

/// Opens a model: a GGUF file, a Hugging Face folder (config.json and safetensors), with weights
/// mapped.
/// @throws IoError that names the file and what is wrong; ValueError for an architecture that is
/// not supported.
template <std::floating_point T>
std::unique_ptr<BasicModel<T>> load(const std::filesystem::path& path) {
  if (!std::filesystem::is_directory(path)) return detail::gguf_decoder<T>(path);
  const detail::FolderConfig folder(path);
  const auto& json = folder.json;
  if (folder.architecture == nullptr)
    json.at("model_type").fail(concat("architecture '", folder.type, "' is not supported"));
  const SafetensorsWeights<T> weights(path, detail::prefixes(*folder.architecture));
  switch (folder.architecture->family) {
    case Family::bert:
      detail::check_class(json, {"ForSequenceClassification", "ForTokenClassification",
                                 "ForMaskedLM", "ForPreTraining", "Model"});
      return std::make_unique<BasicBert<T>>(detail::bert_config(json), weights);
    case Family::vit:
      detail::check_class(json, {"ForImageClassification", "Model"});
      return std::make_unique<BasicVit<T>>(detail::vit_config(json), weights);
    case Family::t5:
      return std::make_unique<BasicT5<T>>(detail::t5_config(json), weights);
    default:
      return detail::decoder<T>(*folder.architecture, json, weights);
  }
}

#ifdef GRAFT_METHODS_COMPILED
extern template std::unique_ptr<BasicModel<float>> load<float>(const std::filesystem::path&);
extern template std::unique_ptr<BasicBert<float>> load_encoder<float>(const std::filesystem::path&,
                                                                      const HeadConfig&,
                                                                      std::vector<std::string>*);
extern template std::unique_ptr<BasicT5<float>> load_t5_classifier<float>(
    const std::filesystem::path&, const HeadConfig&, std::vector<std::string>*);
extern template std::unique_ptr<BasicCausalModel<float>> load_decoder_classifier<float>(
    const std::filesystem::path&, const HeadConfig&, std::vector<std::string>*);
extern template std::unique_ptr<BasicVit<float>> load_image_classifier<float>(
    const std::filesystem::path&, const HeadConfig&, std::vector<std::string>*);
#endif

}  // namespace graft::inline v0_1::models
