#include "graft/compose/tied_head.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "adapters/random_weights.hpp"
#include "graft/adapters/low_rank/lora_config.hpp"
#include "graft/compose/adapter_model.hpp"
#include "graft/compose/methods.hpp"
#include "graft/models/llama.hpp"
#include "graft/models/t5.hpp"
#include "io/temporary_folder.hpp"

using graft::Index;
using Wide = graft::BasicTensor<double>;

namespace {

/// Gives every trained tensor other values.
void redraw(const graft::AdapterSet<double>& set) {
  unsigned seed = 90;
  for (const auto& p : set.parameters())
    p.assign(checks::random_tensor<double>(p.shape(), ++seed, 0.3));
}

double difference(const Wide& a, const Wide& b) {
  double most = 0;
  for (Index i = 0; i < a.size(); ++i) most = std::max(most, std::abs(a[i] - b[i]));
  return most;
}

graft::ConfigValue::Map config(const char* field, const char* target) {
  graft::ConfigValue::Map map;
  map["peft_type"] = std::string("LORA");
  map["r"] = std::int64_t{3};
  map["target_modules"] =
      graft::ConfigValue::List{graft::ConfigValue(std::string("layers.0.self_attn.q_proj"))};
  map[field] = graft::ConfigValue::List{graft::ConfigValue(std::string(target))};
  map["ensure_weight_tying"] = true;
  return map;
}

graft::models::LlamaConfig llama() {
  graft::models::LlamaConfig c;
  c.vocabulary = 13;
  c.hidden_size = 8;
  c.intermediate_size = 12;
  c.layers = 1;
  c.heads = c.kv_heads = 2;
  c.head_dim = c.rope.dim = 4;
  return c;
}

graft::models::T5Config t5() {
  graft::models::T5Config c;
  c.vocabulary = 11;
  c.hidden_size = 8;
  c.head_dim = 4;
  c.intermediate_size = 10;
  c.encoder_layers = c.decoder_layers = 1;
  c.heads = 2;
  return c;
}

/// Logits of a model for a few tokens.
Wide logits(const graft::models::BasicModel<double>& model) {
  graft::models::BasicBatch<double> batch;
  batch.batch = 1;
  batch.seq_len = 3;
  batch.ids = {4, 5, 6};
  batch.labels = {7, 8};
  graft::BasicTape<double> tape({.gradients = false, .training = false});
  return model.logits(tape, batch).value().clone();
}

}  // namespace

TEST_CASE("Asked for tied weights, head and embedding are one layer, whichever is named") {
  const auto c = llama();
  for (const char* field : {"target_modules", "modules_to_save"})
    for (const char* target : {"lm_head", "embed_tokens"}) {
      INFO(field << " " << target);
      graft::models::BasicLlama<double> model(c, checks::RandomWeights<double>());
      REQUIRE(is_tied_head(model.head, model.sites()));
      graft::BasicAdapterModel<double> adapters(model.sites(), graft::all_methods<double>());
      graft::TorchGenerator generator(3);
      auto& set = adapters.add("default", config(field, target), generator);
      const bool whole = std::string(field) == "modules_to_save";
      CHECK(set.trainable_elements() == (whole ? 13 * 8 + 2 * 3 * 8 : 3 * (13 + 8)));
      redraw(set);
      graft::models::BasicBatch<double> batch;
      batch.batch = 2;
      batch.seq_len = 3;
      batch.ids = {1, 5, 12, 0, 7, 3};
      const auto run = [&] {
        graft::BasicTape<double> tape({.gradients = false, .training = false});
        return model.logits(tape, batch).value().clone();
      };
      const auto before = run();
      adapters.merge();
      CHECK(difference(run(), before) < 1e-12);
      CHECK(difference(model.head.base().dense_weight(), model.embed_tokens.table().dense()) <
            1e-12);
    }
}

TEST_CASE(
    "The stacks of T5 share a table: an adapter belongs to one of them, trained tokens to all") {
  graft::models::BasicT5<double> model(t5(), checks::RandomWeights<double>());
  const auto run = [&] { return logits(model); };
  const auto base = run();
  graft::BasicAdapterModel<double> adapters(model.sites(), graft::all_methods<double>());
  const auto effect = [&](const char* name, auto config) {
    redraw(adapters.add(name, config, 1));
    return difference(run(), base);
  };
  graft::LoRAConfig lora{.rank = 2, .target_modules = {"shared"}};
  CHECK(effect("shared", lora) == 0);
  lora.target_modules = {"decoder.embed_tokens"};
  CHECK(effect("decoder", lora) > 1e-3);
  graft::TrainableTokensConfig tokens;
  tokens.token_indices = {4};  // in the encoder only
  tokens.target_modules = {"shared"};
  CHECK(effect("encoder token", tokens) > 1e-3);
  tokens.token_indices = {7};  // in the decoder, and a row of the head
  CHECK(effect("decoder token", tokens) > 1e-3);
  tokens.token_indices = {9};  // a row of the head
  CHECK(effect("head token", tokens) > 1e-3);
  const auto changed = run();
  CHECK(changed[9] != base[9]);
  CHECK(std::abs(changed[8] - base[8]) < 1e-12);
}

TEST_CASE(
    "A pattern that names the head puts one adapter on the embedding, which the head follows") {
  for (const char* pattern : {".*(embed_tokens|lm_head)", ".*lm_head"}) {
    INFO(pattern);
    graft::models::BasicLlama<double> model(llama(), checks::RandomWeights<double>());
    graft::BasicAdapterModel<double> adapters(model.sites(), graft::all_methods<double>());
    graft::TorchGenerator generator(3);
    auto map = config("unused", "");
    map.erase("unused");
    map["target_modules"] = std::string(pattern);
    auto& set = adapters.add("default", map, generator);
    const auto tensors = set.tensors();
    REQUIRE(tensors.size() == 2);
    CHECK(tensors[0].key == "base_model.model.model.embed_tokens.lora_embedding_A");
    const auto after = set.config();
    CHECK(*after.at("target_modules").get_if<std::string>() ==
          "(?:" + std::string(pattern) + R"(|^model\.embed_tokens$))");
    redraw(set);
    const auto before = logits(model);
    CHECK(difference(model.head.base().dense_weight(), model.embed_tokens.table().dense()) == 0);
    adapters.merge();
    CHECK(difference(logits(model), before) < 1e-12);
    CHECK(difference(model.head.base().dense_weight(), model.embed_tokens.table().dense()) < 1e-12);
  }
}

TEST_CASE(
    "Asked for tied weights, all layers over the table of T5 are adapted, the head as the table") {
  const graft_test::TemporaryFolder folder;
  for (const char* field : {"target_modules", "modules_to_save"})
    for (const char* target : {"embed_tokens", "lm_head"}) {
      INFO(field << " " << target);
      graft::models::BasicT5<double> model(t5(), checks::RandomWeights<double>());
      const auto& sites = model.sites();
      graft::BasicAdapterModel<double> adapters(model.sites(), graft::all_methods<double>());
      graft::TorchGenerator generator(3);
      auto map = config(field, target);
      if (field == std::string("modules_to_save"))
        map["target_modules"] = graft::ConfigValue::List{graft::ConfigValue("q")};
      redraw(adapters.add("default", map, generator));
      adapters.save("default", folder.path());
      const auto before = logits(model);
      adapters.merge();
      CHECK(difference(logits(model), before) < 1e-12);
      REQUIRE(sites.embedding.size() == 5);  // the last two are of distances
      const auto table = sites.embedding.front()->table().dense();
      CHECK(difference(sites.linear.back()->base().dense_weight(), table) < 1e-12);
      const bool whole = field == std::string("modules_to_save");
      for (const std::size_t i : {1U, 2U})
        CHECK((difference(sites.embedding[i]->table().dense(), table) == 0) == whole);
      adapters.unmerge();
      adapters.remove("default");
      CHECK(difference(logits(model), before) > 1e-3);
      adapters.load("default", folder.path());
      CHECK(difference(logits(model), before) < 1e-5);
    }
}

TEST_CASE("Only the names that PEFT listens to ask for tied weights") {
  graft::models::BasicT5<double> model(t5(), checks::RandomWeights<double>());
  const auto base = logits(model);
  graft::BasicAdapterModel<double> adapters(model.sites(), graft::all_methods<double>());
  graft::TorchGenerator generator(3);
  redraw(adapters.add("default", config("target_modules", "shared"), generator));
  CHECK(difference(logits(model), base) == 0);
}

TEST_CASE("A table that is trained whole is in files under the head's name too, as PEFT wants it") {
  const graft_test::TemporaryFolder folder;
  graft::models::BasicLlama<double> model(llama(), checks::RandomWeights<double>());
  graft::BasicAdapterModel<double> adapters(model.sites(), graft::all_methods<double>());
  graft::TorchGenerator generator(3);
  redraw(adapters.add("default", config("modules_to_save", "lm_head"), generator));
  const auto before = logits(model);
  adapters.save("default", folder.path());
  const auto file = graft::io::SafetensorsFile::open(folder / "adapter_model.safetensors");
  CHECK(std::ranges::equal(file.at("base_model.model.lm_head.weight").data,
                           file.at("base_model.model.model.embed_tokens.weight").data));
  adapters.remove("default");
  adapters.load("default", folder.path());
  CHECK(difference(logits(model), before) < 1e-5);
}

TEST_CASE("A file may hold copies for the head that follows, and no other tensors of it") {
  const graft_test::TemporaryFolder folder;
  graft::models::BasicLlama<double> model(llama(), checks::RandomWeights<double>());
  graft::BasicAdapterModel<double> adapters(model.sites(), graft::all_methods<double>());
  graft::TorchGenerator generator(3);
  adapters.add("default", config("target_modules", "lm_head"), generator);
  adapters.save("default", folder.path());
  const auto path = folder / "adapter_model.safetensors";
  std::vector<graft::io::TensorToWrite> tensors;
  const auto file = graft::io::SafetensorsFile::open(path);
  for (const auto& view : file.tensors())
    tensors.push_back({view.name, view.dtype, view.shape, view.data});
  const std::vector<float> values(3 * 13);
  const std::string head = "base_model.model.lm_head.";
  const auto add = [&](const std::string& name, std::vector<Index> shape, std::size_t count) {
    tensors.push_back({head + name, graft::io::DType::f32, std::move(shape),
                       std::as_bytes(std::span(values).first(count))});
  };
  add("lora_A.weight", {3, 8}, 24);
  add("lora_B.weight", {13, 3}, 39);
  add("stray", {5}, 5);
  graft::io::write_safetensors(folder / "new", tensors);
  std::filesystem::rename(folder / "new", path);
  graft::LoadReport report;
  adapters.load("again", folder.path(), false, &report);
  CHECK(report.missing.empty());
  CHECK(report.unexpected == std::vector<std::string>{head + "stray"});
}

TEST_CASE("Trained tokens are in files under the names of all layers over the table, as in PEFT") {
  const graft_test::TemporaryFolder folder;
  const auto keys = [&](auto& model, const graft::ConfigValue::Map& map) {
    graft::BasicAdapterModel<double> adapters(model.sites(), graft::all_methods<double>());
    graft::TorchGenerator generator(3);
    auto& set = adapters.add("default", map, generator);
    const auto trained = set.trainable_elements();
    redraw(set);
    adapters.save("default", folder.path());
    const auto before = logits(model);
    adapters.remove("default");
    CHECK(adapters.load("default", folder.path()).trainable_elements() == trained);
    CHECK(difference(logits(model), before) < 1e-5);
    std::set<std::string> names;
    const auto file = graft::io::SafetensorsFile::open(folder.path() / "adapter_model.safetensors");
    for (const auto& view : file.tensors())
      if (view.name.ends_with("trainable_tokens_delta"))
        names.insert(view.name.substr(std::string("base_model.model.").size()));
    return names;
  };
  const graft::ConfigValue::List tokens{graft::ConfigValue(4), graft::ConfigValue(7)};
  const graft::ConfigValue::Map alone{{"peft_type", "TRAINABLE_TOKENS"}, {"token_indices", tokens}};
  graft::models::BasicLlama<double> model(llama(), checks::RandomWeights<double>());
  CHECK(keys(model, alone) == std::set<std::string>{"model.embed_tokens.trainable_tokens_delta",
                                                    "lm_head.trainable_tokens_delta"});
  graft::models::BasicT5<double> stacks(t5(), checks::RandomWeights<double>());
  CHECK(keys(stacks, alone) == std::set<std::string>{"shared.trainable_tokens_delta",
                                                     "encoder.embed_tokens.trainable_tokens_delta",
                                                     "decoder.embed_tokens.trainable_tokens_delta",
                                                     "lm_head.trainable_tokens_delta"});
  // Beside LoRA under the embedding's alone.
  auto beside = config("target_modules", "q_proj");
  beside["ensure_weight_tying"] = false;
  beside["trainable_token_indices"] = tokens;
  CHECK(keys(model, beside) ==
        std::set<std::string>{"model.embed_tokens.token_adapter.trainable_tokens_delta"});
}

TEST_CASE("Trained tokens are read from a file that has them under the embedding's name alone") {
  const graft_test::TemporaryFolder folder;
  const auto path = folder / "adapter_model.safetensors";
  const auto missing = [&](auto& model, const graft::ConfigValue::Map& map,
                           const std::string& kept) {
    graft::BasicAdapterModel<double> adapters(model.sites(), graft::all_methods<double>());
    graft::TorchGenerator generator(3);
    redraw(adapters.add("default", map, generator));
    adapters.save("default", folder.path());
    const auto before = logits(model);
    adapters.remove("default");
    {
      const auto file = graft::io::SafetensorsFile::open(path);
      std::vector<graft::io::TensorToWrite> tensors;
      for (const auto& view : file.tensors())
        if (!view.name.ends_with("trainable_tokens_delta") ||
            view.name == "base_model.model." + kept + ".trainable_tokens_delta")
          tensors.push_back({view.name, view.dtype, view.shape, view.data});
      graft::io::write_safetensors(folder / "new", tensors);
    }
    std::filesystem::rename(folder / "new", path);
    graft::LoadReport report;
    adapters.load("default", folder.path(), false, &report);
    CHECK(report.unexpected.empty());
    CHECK((difference(logits(model), before) < 1e-5) == report.missing.empty());
    return report.missing;
  };
  const graft::ConfigValue::List tokens{graft::ConfigValue(4), graft::ConfigValue(7)};
  const graft::ConfigValue::Map alone{{"peft_type", "TRAINABLE_TOKENS"}, {"token_indices", tokens}};
  graft::models::BasicLlama<double> model(llama(), checks::RandomWeights<double>());
  CHECK(missing(model, alone, "model.embed_tokens").empty());
  graft::models::BasicT5<double> stacks(t5(), checks::RandomWeights<double>());
  CHECK(missing(stacks, alone, "shared").empty());
  for (const bool tied : {false, true}) {
    auto beside = config("target_modules", "q_proj");
    beside["ensure_weight_tying"] = tied;
    beside["trainable_token_indices"] = tokens;
    CHECK(missing(model, beside, "model.embed_tokens.token_adapter").empty());
    CHECK(missing(model, beside, "none") ==
          std::vector<std::string>{
              "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"});
  }
}
