#include "graft/models/load.hpp"

#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fs = std::filesystem;
namespace detail = graft::models::detail;
using graft::Index;
using graft::io::GgufFile;
using graft::io::GgufMetadata;
using graft::io::Json;
using graft::io::JsonView;

namespace {

/// A GGUF file with what a LLaMA's description needs, heads of 4, and some rotary settings.
class Gguf {
 public:
  Gguf() : path_(fs::temp_directory_path() / graft::concat("graft-load-", ::getpid(), ".gguf")) {}
  ~Gguf() { fs::remove(path_); }

  /// `change` sets further fields.
  template <class Change>
  const fs::path& with(const Change& change, bool divisors = false) {
    GgufMetadata metadata;
    metadata.set("general.architecture", std::string("llama"));
    for (const auto& [key, value] : {std::pair{"embedding_length", 8U},
                                     {"feed_forward_length", 8U},
                                     {"block_count", 1U},
                                     {"attention.head_count", 2U}})
      metadata.set(std::string("llama.") + key, std::uint32_t{value});
    change(metadata);
    const std::vector<float> values(8 * 3, 2);
    std::vector<graft::io::GgufTensorToWrite> tensors{
        {"token_embd.weight", {3, 8}, 0, std::as_bytes(std::span(values))}};
    if (divisors)
      tensors.push_back({"rope_freqs.weight", {2}, 0, std::as_bytes(std::span(values).first(2))});
    graft::io::write_gguf(path_, metadata, tensors);
    return path_;
  }
  template <class Change>
  graft::RopeConfig rope(const Change& change, bool divisors = false) {
    return detail::llama_config(GgufFile::open(with(change, divisors)), "llama").rope;
  }

 private:
  fs::path path_;
};

/// Whole decoders of one layer, of each architecture that GGUF files have; `head`: with one of
/// other values than the embedding.
fs::path write_decoder(const fs::path& path, const std::string& architecture, bool head = false) {
  GgufMetadata metadata;
  metadata.set("general.architecture", architecture);
  for (const auto& [key, value] : {std::pair{"embedding_length", 8U},
                                   {"feed_forward_length", 8U},
                                   {"block_count", 1U},
                                   {"attention.head_count", 2U},
                                   {"attention.head_count_kv", 2U},
                                   {"attention.key_length", 4U}})
    metadata.set(architecture + "." + key, std::uint32_t{value});
  std::vector<float> values(8 * 8);
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>((5 * i + i * i / 7) % 13) / 10 - 0.5F;
  std::vector<graft::io::GgufTensorToWrite> tensors;
  const auto put = [&](const std::string& name, const std::vector<Index>& shape) {
    const auto count = static_cast<std::size_t>(shape.size() == 1 ? shape[0] : shape[0] * shape[1]);
    tensors.push_back({name + ".weight", shape, 0, std::as_bytes(std::span(values).first(count))});
  };
  put("token_embd", {5, 8});
  put("output_norm", {8});
  if (head)
    tensors.push_back({"output.weight", {5, 8}, 0, std::as_bytes(std::span(values).last(40))});
  for (const char* name :
       {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"})
    put(graft::concat("blk.0.", name), {8, 8});
  for (const char* name : {"attn_norm", "ffn_norm", "post_attention_norm", "post_ffw_norm"})
    put(graft::concat("blk.0.", name), {8});
  for (const char* name : {"attn_q_norm", "attn_k_norm"}) put(graft::concat("blk.0.", name), {4});
  graft::io::write_gguf(path, metadata, tensors);
  return path;
}

}  // namespace

TEST_CASE("A decoder in a GGUF file is a classifier with a drawn head where it is asked for one") {
  const std::string architecture = GENERATE("llama", "qwen2", "qwen3", "gemma3");
  const auto path = write_decoder(
      fs::temp_directory_path() / graft::concat("graft-classifier-", ::getpid(), ".gguf"),
      architecture);
  std::vector<std::string> drawn;
  const auto model =
      graft::models::load_decoder_classifier<float>(path, {.classes = 3, .seed = 4}, &drawn);
  const auto language = graft::models::load<float>(path);
  CHECK_THROWS_WITH(graft::models::load_decoder_classifier<float>(path, {.classes = 0}),
                    Catch::Contains("0 classes"));
  fs::remove(path);
  CHECK(drawn == std::vector<std::string>{"score"});
  CHECK(model->sites().linear.back()->path() == "score");
  CHECK(language->sites().linear.back()->path() == "lm_head");
  const auto logits = [&](std::vector<std::int32_t> ids, std::vector<unsigned char> mask) {
    graft::models::Batch batch;
    batch.batch = 1;
    batch.seq_len = std::ssize(ids);
    batch.ids = std::move(ids);
    batch.mask = std::move(mask);
    graft::Tape tape({.gradients = false, .training = false});
    return model->logits(tape, batch).value().clone();
  };
  const auto whole = logits({1, 4, 2}, {});
  CHECK(whole.shape() == graft::Shape{1, 3});
  const auto padded = logits({1, 4, 2, 0, 0}, {1, 1, 1, 0, 0});
  const auto shorter = logits({1, 4}, {});
  for (Index i = 0; i < 3; ++i) {
    CHECK(padded[i] == Approx(whole[i]));
    CHECK(shorter[i] != Approx(whole[i]));
  }
}

TEST_CASE("The head of a decoder in a GGUF file is the embedding where the file has no other") {
  const std::string architecture = GENERATE("llama", "gemma3");
  const auto first_of_head = [&](bool own) {
    const auto path =
        write_decoder(fs::temp_directory_path() / graft::concat("graft-head-", ::getpid(), ".gguf"),
                      architecture, own);
    const auto model = graft::models::load<float>(path);
    fs::remove(path);
    const auto weight = model->sites().linear.back()->base().dense_weight();
    const auto table = model->sites().embedding.front()->table().dense();
    return std::pair(weight[1], table[1]);
  };
  const auto [tied, shared] = first_of_head(false);
  CHECK(tied == shared);
  const auto [own, table] = first_of_head(true);
  CHECK(own != table);
}

TEST_CASE("Rotary settings of a GGUF file are read, or refused by the name of the field") {
  Gguf file;
  const auto type = [](const char* name) {
    return [name](GgufMetadata& m) { m.set("llama.rope.scaling.type", std::string(name)); };
  };
  const auto yarn = [&](const std::string& key, float value) {
    return [key, value](GgufMetadata& m) {
      m.set("llama.context_length", std::uint32_t{64});
      m.set("llama.rope.scaling.type", std::string("yarn"));
      m.set("llama.rope." + key, value);
    };
  };
  const auto stretched = file.rope(yarn("scaling.factor", 4));
  CHECK(stretched.factor == 4);
  CHECK(stretched.theta == 10000);
  CHECK(stretched.original_positions == 64);
  CHECK(stretched.fast_rotations == 32);
  CHECK(file.rope(yarn("scaling.yarn_beta_slow", 2)).slow_rotations == 2);
  CHECK(file.rope(yarn("freq_base", 500)).theta == 500);

  // A factor of 0 is one that is not set.
  const auto unset = [](GgufMetadata& m) { m.set("llama.rope.scaling.factor", 0.0F); };
  CHECK(file.rope(unset).type == "default");
  CHECK(file.rope(yarn("scaling.factor", 0)).factor == 1);
  const auto linear = [](GgufMetadata& m) { m.set("llama.rope.scale_linear", 3.0F); };
  CHECK(file.rope(linear).type == "linear");
  CHECK(file.rope(linear, true).long_divisors == std::vector<double>{6, 6});

  const auto refused = [&](const auto& change, const char* name, bool divisors = false) {
    CHECK_THROWS_WITH(graft::models::load<float>(file.with(change, divisors)),
                      Catch::Contains(name));
  };
  refused(type("yarn"), "llama.rope.scaling.original_context_length is 0");
  refused(type("su"), "llama.rope.scaling.type 'su'");
  refused(yarn("scaling.factor", 4), "llama.rope.scaling.type is yarn", true);
  constexpr float kInfinite = std::numeric_limits<float>::infinity();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  for (const char* key : {"scaling.factor", "scaling.yarn_beta_fast", "scaling.yarn_beta_slow",
                          "scaling.yarn_attn_factor", "freq_base"}) {
    const std::string whole = graft::concat("llama.rope.", key, " is ");
    for (const float value : {kInfinite, kNan}) refused(yarn(key, value), whole.c_str());
    if (std::string_view(key).ends_with("attn_factor")) continue;
    refused(yarn(key, -1), whole.c_str());
    if (key != std::string_view("scaling.factor")) refused(yarn(key, 0), whole.c_str());
  }
}

TEST_CASE("Rotary settings of a config.json are read, or refused by the name of the field") {
  const auto rope = [](const char* type, const std::string& key, const Json& value,
                       const Json& top = {{"max_position_embeddings", 64}}) {
    Json config = top;
    config["rope_parameters"] = {{"rope_type", type}};
    auto& parameters = config["rope_parameters"];
    if (std::string_view(type) == "longrope")
      parameters["short_factor"] = parameters["long_factor"] = {1.0, 2.0};
    if (!key.empty()) parameters[key] = value;
    return detail::rope_config(JsonView(config, "config.json"), 4);
  };
  CHECK(rope("yarn", "factor", 4).factor == 4);
  CHECK(rope("yarn", "mscale", 0).table_scale == 1);
  CHECK(rope("llama3", "low_freq_factor", 2).low_frequency_factor == 2);
  CHECK(rope("longrope", "long_factor", {3, 4}).long_divisors == std::vector<double>{3, 4});
  CHECK(rope("default", "factor", -1).type == "default");  // plays no part there

  using Catch::Contains;
  constexpr double kInfinite = std::numeric_limits<double>::infinity();
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  const std::pair<const char*, const char*> positive[] = {
      {"default", "rope_theta"},
      {"linear", "factor"},
      {"dynamic", "factor"},
      {"llama3", "factor"},
      {"llama3", "low_freq_factor"},
      {"llama3", "high_freq_factor"},
      {"yarn", "beta_fast"},
      {"yarn", "beta_slow"},
      {"yarn", "factor"},
      {"yarn", "original_max_position_embeddings"}};
  for (const auto& [type, key] : positive)
    for (const double value : {0.0, -1.0, kInfinite, kNan})
      CHECK_THROWS_WITH(rope(type, key, value),
                        Contains(std::string("rope_parameters.") + key) && Contains("above 0"));
  for (const char* key : {"mscale", "mscale_all_dim", "attention_factor"})
    CHECK_THROWS_WITH(rope("yarn", key, kInfinite), Contains(key) && Contains("a finite number"));
  for (const double value : {0.0, kNan})
    CHECK_THROWS_WITH(rope("longrope", "short_factor", {1, value}), Contains("short_factor"));
  CHECK_THROWS_WITH(rope("llama3", "high_freq_factor", 1), Contains("above the low_freq_factor"));
  CHECK_THROWS_WITH(rope("yarn", "", {}, Json::object()),
                    Contains("neither original_max_position_embeddings"));
  const Json one{{"max_position_embeddings", 64}, {"original_max_position_embeddings", 1}};
  CHECK_THROWS_WITH(rope("longrope", "factor", 2, one), Contains("no finite attention_factor"));
  for (const char* key : {"rope_theta", "original_max_position_embeddings"})
    CHECK_THROWS_WITH(rope("default", "", {}, {{key, 0}}), Contains(key) && Contains("above 0"));
}

TEST_CASE("A decoder is a classifier where its class says so, or where it is asked for one") {
  const auto head = [](const char* architecture, const char* more, Index classes) {
    auto json = Json::parse(more);
    json["architectures"] = {architecture};
    return detail::decoder_head(JsonView(json, "config.json"), "ForCausalLM", classes).classes;
  };
  CHECK(head("LlamaForCausalLM", "{}", 0) == 0);
  CHECK(head("LlamaForSequenceClassification", R"({"id2label": {"0": "a"}})", 0) == 1);
  CHECK(head("LlamaForSequenceClassification", R"({"num_labels": 5})", 0) == 5);
  for (const char* name : {"LlamaModel", "LlamaForCausalLM", "LlamaForSequenceClassification"})
    CHECK(head(name, R"({"num_labels": 5})", 3) == 3);
  CHECK_THROWS_WITH(head("LlamaModel", "{}", 0), Catch::Contains("'LlamaModel'"));
  CHECK_THROWS_WITH(head("LlamaForTokenClassification", "{}", 3),
                    Catch::Contains("'LlamaForTokenClassification'"));
  // No class at all is no language model.
  CHECK_THROWS_WITH(head("LlamaForSequenceClassification", R"({"id2label": {}})", 0),
                    Catch::Contains("id2label"));
  CHECK_THROWS_WITH(head("LlamaForSequenceClassification", R"({"num_labels": 0})", 0),
                    Catch::Contains("num_labels"));
}

namespace {

/// The description of a small decoder.
Json small_config(const char* type) {
  return {{"model_type", type},       {"architectures", {"TestForCausalLM"}},
          {"vocab_size", 7},          {"hidden_size", 8},
          {"intermediate_size", 8},   {"num_hidden_layers", 2},
          {"num_attention_heads", 2}, {"max_window_layers", 1}};
}
/// What is read from it with one field of another value.
graft::models::LlamaConfig small_decoder(const char* type, const std::string& key = "",
                                         const Json& value = {}) {
  auto json = small_config(type);
  if (!key.empty()) json[key] = value;
  return detail::llama_config(JsonView(json, "config.json"));
}
graft::models::Gemma3Config small_gemma(const Json& more = Json::object()) {
  auto json = small_config("gemma3_text");
  json.update(more);
  return detail::gemma3_config(JsonView(json, "config.json"));
}

}  // namespace

TEST_CASE("What a config.json leaves out is what transformers takes") {
  CHECK(small_decoder("mistral").window == 4096);
  CHECK(small_decoder("mistral", "sliding_window", nullptr).window == 0);
  CHECK(small_decoder("mistral", "sliding_window", 5).window == 5);
  CHECK(small_decoder("llama", "use_sliding_window", true).window == 0);
  CHECK(small_decoder("qwen2").window == 0);
  const auto qwen = small_decoder("qwen2", "use_sliding_window", true);
  CHECK(qwen.window == 4096);
  CHECK(qwen.full_attention == std::vector<bool>{true, false});
  for (const char* type : {"llama", "mistral", "qwen2"}) CHECK(small_decoder(type).head_dim == 4);
  CHECK(small_decoder("qwen3").head_dim == 128);
  CHECK(small_decoder("llama").kv_heads == 2);
  CHECK(small_decoder("mistral").kv_heads == 8);
  for (const char* type : {"qwen2", "qwen3"}) {
    CHECK(small_decoder(type).kv_heads == 32);
    CHECK(small_decoder(type, "num_key_value_heads", nullptr).kv_heads == 2);
  }
  for (const char* type : {"llama", "mistral", "qwen2", "qwen3"}) {
    CHECK(small_decoder(type).rms_norm_eps == 1e-6);
    CHECK(small_decoder(type).rope.theta == 1e4);
  }
  const auto gemma = small_gemma();
  CHECK(gemma.kv_heads == 4);
  CHECK(gemma.head_dim == 256);
  CHECK(gemma.rms_norm_eps == 1e-6);
  CHECK(gemma.full_rope.theta == 1e6);
  CHECK(gemma.sliding_rope.theta == 1e4);
  CHECK(gemma.classifier.padding_id == 0);
  CHECK_FALSE(small_gemma({{"pad_token_id", nullptr}}).classifier.padding_id.has_value());
}

TEST_CASE("The older rotary settings come before the newer ones where a file has both") {
  const Json linear{{"rope_type", "linear"}, {"factor", 2}};
  const Json newer{{"rope_type", "dynamic"}, {"factor", 3}, {"rope_theta", 77}};
  const auto rope = [&](const Json& older) {
    const Json json{{"max_position_embeddings", 64},
                    {"rope_theta", 5},
                    {"rope_scaling", older},
                    {"rope_parameters", newer}};
    return detail::rope_config(JsonView(json, "config.json"), 4);
  };
  CHECK(rope(linear).type == "linear");
  CHECK(rope(linear).factor == 2);
  CHECK(rope(linear).theta == 5);
  for (const Json& none : {Json(nullptr), Json::object()}) {
    CHECK(rope(none).type == "dynamic");
    CHECK(rope(none).theta == 77);
  }

  // Gemma 3 adds them to those of its layers with full attention.
  const auto gemma = [&](const Json& full) {
    return small_gemma({{"rope_scaling", linear}, {"rope_parameters", {{"full_attention", full}}}});
  };
  CHECK(gemma({{"rope_theta", 77}}).full_rope.type == "linear");
  CHECK(gemma({{"rope_theta", 77}}).full_rope.theta == 77);
  CHECK(gemma({{"rope_theta", 77}}).sliding_rope.type == "default");
  CHECK_THROWS_WITH(gemma(linear), Catch::Contains("rope_scaling") && Catch::Contains("linear"));
}

TEST_CASE("Gemma 3 takes a type of angles by the older key only where transformers does") {
  const Json older{{"type", "linear"}, {"factor", 8}, {"rope_theta", 55}};
  const auto rope = [&](const Json& more) {
    Json json{{"rope_scaling", older}};
    json.update(more);
    return small_gemma(json).full_rope;
  };
  CHECK(rope(Json::object()).type == "default");
  CHECK(rope(Json::object()).factor == 1);
  CHECK(rope(Json::object()).theta == 55);
  const auto beside = [&](const Json& full) {
    return rope({{"rope_parameters", {{"full_attention", full}}}});
  };
  CHECK(beside({{"rope_type", "default"}, {"rope_theta", 77}}).type == "default");
  CHECK(beside({{"rope_theta", 77}}).type == "linear");
  CHECK(beside({{"rope_theta", 77}}).factor == 8);
}

TEST_CASE("The positions of the training at the top of a config.json come before those within") {
  Json json{{"max_position_embeddings", 64}, {"rope_scaling", {{"type", "yarn"}, {"factor", 2}}}};
  const auto positions = [&] {
    return detail::rope_config(JsonView(json, "config.json"), 4).original_positions;
  };
  CHECK(positions() == 64);
  json["rope_scaling"]["original_max_position_embeddings"] = 16;
  CHECK(positions() == 16);
  json["original_max_position_embeddings"] = 32;
  CHECK(positions() == 32);
}

TEST_CASE("The padding id of a LLaMA is the row without a gradient in its embedding") {
  const auto row = [](const Json& id) {
    const graft::models::ZeroWeights<float> zeros([](const auto&) { return false; });
    const graft::models::Llama model(small_decoder("llama", "pad_token_id", id), zeros);
    return model.embed_tokens.padding_index;
  };
  CHECK(row(nullptr) == -1);
  CHECK(row(3) == 3);
  CHECK(row(-1) == 6);  // torch counts from the end
}

TEST_CASE("Part of a head's elements rotated is refused by the name of the field") {
  const auto read = [](const Json& top, const Json& within) {
    Json json{{"max_position_embeddings", 64},
              {"rope_parameters", {{"rope_type", "linear"}, {"factor", 2}}}};
    json.update(top);
    json["rope_parameters"].update(within);
    return detail::rope_config(JsonView(json, "config.json"), 4);
  };
  const Json half{{"partial_rotary_factor", 0.5}}, whole{{"partial_rotary_factor", 1}};
  CHECK_THROWS_WITH(read(Json::object(), half),
                    Catch::Contains("'rope_parameters.partial_rotary_factor'"));
  CHECK_THROWS_WITH(read(half, Json::object()), Catch::Contains("'partial_rotary_factor'"));
  CHECK(read(half, whole).factor == 2);
}
