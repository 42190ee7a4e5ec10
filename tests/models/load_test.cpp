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

}  // namespace

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
