#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <memory>
#include <span>

#include "graft/compose/methods.hpp"
#include "graft/train/trainer.hpp"
#include "train/tiny_model.hpp"

using graft::ConfigValue;
using graft::Index;

namespace {

/// Wide enough for the defaults of every method.
graft::models::LlamaConfig wide(Index layers) {
  auto c = tiny::config();
  c.hidden_size = c.intermediate_size = 256;
  c.layers = layers;
  c.heads = c.kv_heads = 4;
  c.head_dim = c.rope.dim = 64;
  return c;
}

struct Run {
  graft::models::Llama model;
  graft::AdapterModel adapters{model.sites(), graft::all_methods<float>()};
  std::unique_ptr<graft::Trainer> trainer;

  Run(const graft::MethodEntry<float>& entry, ConfigValue::Map config,
      const graft::TrainConfig& train)
      // SHERL learns from three states or more.
      : model(wide(entry.info.peft_type == "SHERL" ? 3 : 1), tiny::RandomWeights()) {
    graft::TorchGenerator generator(3);
    if (entry.experts) {
      auto lora = graft::all_methods<float>().at("LORA").defaults;
      lora["init_lora_weights"] = false;
      adapters.add("one", lora, generator);
      adapters.add("other", lora, generator);
      config["adapters"] = ConfigValue::Map{{"one", ConfigValue("")}, {"other", ConfigValue("")}};
    }
    adapters.add("default", config, generator);
    auto rows = tiny::examples(6);
    auto data = graft::text_dataset<float>(std::move(rows), 0);
    const auto batch = data.batch;
    data.batch = [batch](std::span<const Index> picked) {
      auto b = batch(picked);
      b.task_ids.assign(static_cast<std::size_t>(b.batch), 0);
      return b;
    };
    trainer =
        std::make_unique<graft::Trainer>(model, adapters, std::move(data), graft::Dataset{}, train);
  }
  /// All values of the adapter and the frozen weights, one after the other.
  std::vector<float> values() const {
    std::vector<float> all;
    const auto put = [&](const graft::Tensor& t) { all.insert(all.end(), t.begin(), t.end()); };
    for (const auto& [key, tensor] : adapters.at("default").tensors())
      if (tensor.parameter) put(tensor.parameter.value());
    for (const auto* site : model.sites().linear) put(site->base().dense_weight());
    return all;
  }
};

/// A run that stops in the middle and goes on ends with the bits of an unbroken one.
void check_resume(const graft::MethodEntry<float>& entry, const ConfigValue::Map& config,
                  Index steps) {
  const auto folder =
      std::filesystem::temp_directory_path() / graft::concat("graft-every-resume-", ::getpid());
  graft::TrainConfig train;
  train.steps = steps;
  train.batch_size = 2;
  train.checkpoint_interval = 0;
  train.seed = 5;
  Run unbroken(entry, config, train);
  const auto begin = unbroken.values();
  unbroken.trainer->run();
  CHECK(unbroken.values() != begin);
  train.checkpoints = folder;
  {
    Run first(entry, config, train);
    graft::TrainCallbacks callbacks;
    callbacks.stop = [&] { return first.trainer->step() == steps / 2; };
    first.trainer->run(callbacks);
  }
  Run second(entry, config, train);
  second.trainer->resume(graft::list_checkpoints(folder).back().second);
  CHECK(second.trainer->step() == steps / 2);
  second.trainer->run();
  CHECK(second.values() == unbroken.values());
  std::filesystem::remove_all(folder);
}

void check_resume(const char* method,
                  std::initializer_list<std::pair<const char*, ConfigValue>> set, Index steps) {
  INFO(method);
  const auto& entry = graft::all_methods<float>().at(method);
  auto config = entry.example;
  for (const auto& [key, value] : set) config[key] = value;
  try {
    check_resume(entry, config, steps);
  } catch (const graft::Error& error) {
    FAIL_CHECK(error.what());
  }
}

}  // namespace

TEST_CASE("Every method goes on from a checkpoint bit for bit") {
  for (const auto& entry : graft::all_methods<float>().entries()) {
    if (!entry.info.starts_empty.empty()) continue;
    INFO(entry.info.peft_type);
    try {
      check_resume(entry, entry.example, 2);
    } catch (const graft::Error& error) {
      FAIL_CHECK(error.what());
    }
  }
}

TEST_CASE("Procedures go on from a checkpoint in the middle of what they do") {
  const ConfigValue q = ConfigValue::List{ConfigValue("q_proj")};
  check_resume("LOSIA", {{"period", 2}}, 10);
  check_resume("DYLORA", {}, 6);
  check_resume("GRADNORMLORP", {{"update_proj_gap", 2}}, 6);
  check_resume("INCRELORA",
               {{"target_r", 4}, {"init_warmup", 0}, {"incre_interval", 2}, {"top_h", 1}}, 8);
  check_resume("TRIADAPTLORA", {{"reference_rank", 4}, {"incre_interval", 2}}, 8);
  check_resume("ASLORA", {}, 6);
  check_resume("ROSA", {{"spa_num_grads", 4}}, 8);
  check_resume("ROSA", {{"schedule", "wl2"}, {"spa_num_grads", 2}, {"grad_acc_mode", "mean"}}, 6);
  check_resume("STATIC_MASK", {{"selection", "fisher"}, {"score_steps", 4}}, 6);
  check_resume("STATIC_MASK", {{"selection", "snip"}, {"score_steps", 2}}, 6);
  check_resume("SPT",
               {{"structured_modules", ConfigValue::List{}},
                {"sparse_modules", q},
                {"target_modules", q},
                {"tau", 50},
                {"score_steps", 4}},
               6);
  check_resume("SPIEL", {{"reselection_steps", 4}, {"selection_accumulation_steps", 2}}, 10);
  check_resume("SPIEL",
               {{"selection_algorithm", "sm3"},
                {"reselection_steps", 4},
                {"selection_accumulation_steps", 2}},
               10);
  check_resume("NEUROADA", {{"selection", "gradient"}}, 4);
  check_resume("ADALORA", {{"tinit", 1}, {"tfinal", 2}, {"target_r", 4}}, 10);
  check_resume("ADAMSS",
               {{"use_asa", true},
                {"init_warmup", 1},
                {"final_warmup", 8},
                {"mask_interval", 2},
                {"asa_target_subspaces", 3}},
               10);
  check_resume("PST", {}, 8);
}
