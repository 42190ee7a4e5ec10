#include "graft/compose/tied_head.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <string>
#include <vector>

#include "adapters/random_weights.hpp"
#include "graft/adapters/low_rank/lora_config.hpp"
#include "graft/compose/adapter_model.hpp"
#include "graft/compose/methods.hpp"
#include "graft/models/llama.hpp"
#include "graft/models/t5.hpp"

using graft::Index;
using Tensor = graft::BasicTensor<double>;

namespace {

/// Gives every trained tensor other values.
void redraw(const graft::AdapterSet<double>& set) {
  unsigned seed = 90;
  for (const auto& p : set.parameters())
    p.assign(checks::random_tensor<double>(p.shape(), ++seed, 0.3));
}

double difference(const Tensor& a, const Tensor& b) {
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

}  // namespace

TEST_CASE("Asked for tied weights, head and embedding are one layer, whichever is named") {
  graft::models::LlamaConfig c;
  c.vocabulary = 13;
  c.hidden_size = 8;
  c.intermediate_size = 12;
  c.layers = 1;
  c.heads = c.kv_heads = 2;
  c.head_dim = c.rope.dim = 4;
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
  graft::models::T5Config c;
  c.vocabulary = 11;
  c.hidden_size = 8;
  c.head_dim = 4;
  c.intermediate_size = 10;
  c.encoder_layers = c.decoder_layers = 1;
  c.heads = 2;
  graft::models::BasicT5<double> model(c, checks::RandomWeights<double>());
  graft::models::BasicBatch<double> batch;
  batch.batch = 1;
  batch.seq_len = 3;
  batch.ids = {4, 5, 6};
  batch.labels = {7, 8};
  const auto run = [&] {
    graft::BasicTape<double> tape({.gradients = false, .training = false});
    return model.logits(tape, batch).value().clone();
  };
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
