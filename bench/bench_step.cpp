// Times the training step of a model file on fixed random tokens; prints one JSON object.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <optional>
#include <random>

#include "graft/base/profile.hpp"
#include "graft/compose/adapter_model.hpp"
#include "graft/compose/methods.hpp"
#include "graft/io/json.hpp"
#include "graft/models/compute.hpp"
#include "graft/models/load.hpp"
#include "graft/optim/adamw.hpp"
#include "peak_rss.hpp"

namespace {

/// Embeddings whose gradient is wanted, so that a model without adapters has a backward pass.
struct EmbeddingLeaf final : graft::EmbeddingAdapterInterface<float> {
  graft::Var apply(const graft::BasicEmbeddingView<float>& base, graft::Tape& tape,
                   std::span<const std::int32_t> ids) const override {
    return tape.leaf(base(tape, ids).value());
  }
};

double mib(std::int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

}  // namespace

int main(int argc, char** argv) {
  using graft::Index;
  std::string file, method = "LORA", targets = "all-linear", compute = "f32", storage = "f32",
                    trace;
  Index rank = 16, batch_size = 4, tokens = 256, steps = 5;
  double recomputed = 0;
  int threads = 0;
  bool full = false, frozen = false, json = false, profiled = false;
  CLI::App app("Times the training step of a language model.");
  app.add_option("--model", file, "GGUF file or Hugging Face folder")->required();
  app.add_option("--method", method, "peft_type of the method");
  app.add_option("--rank", rank)->check(CLI::PositiveNumber);
  app.add_option("--targets", targets, "all-linear, or names separated by commas");
  app.add_option("--batch", batch_size)->check(CLI::PositiveNumber);
  app.add_option("--tokens", tokens)->check(CLI::PositiveNumber);
  app.add_option("--threads", threads)->check(CLI::NonNegativeNumber);
  app.add_option("--steps", steps)->check(CLI::PositiveNumber);
  app.add_option("--compute", compute)->check(CLI::IsMember({"auto", "f32", "bf16", "f32-split"}));
  app.add_option("--activations", storage, "How values are kept for the backward pass")
      ->check(CLI::IsMember({"f32", "bf16"}));
  app.add_option("--recompute", recomputed,
                 "Share of the blocks that are recomputed instead of keeping activations")
      ->check(CLI::Range(0.0, 1.0));
  auto* whole_model = app.add_flag("--full", full, "Train all linear weights whole");
  app.add_flag("--frozen", frozen, "No adapters: forward pass and gradient of the embeddings only")
      ->excludes(whole_model);
  app.add_flag("--profile", profiled, "Print the last step kernel by kernel (to stderr)");
  app.add_option("--trace", trace, "Write the last step to this file, for chrome://tracing");
  app.add_flag("--json", json);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  try {
    if (threads > 0) graft::ThreadPool::global().set_threads(threads);
    auto loaded = graft::models::load<float>(file);
    auto* model = dynamic_cast<graft::models::CausalModel*>(loaded.get());
    if (model == nullptr) throw graft::ValueError(file + ": no language model");
    model->recomputed_blocks =
        static_cast<Index>(std::ceil(recomputed * static_cast<double>(model->info().layers)));
    using graft::kernels::Compute;
    const Compute products = graft::models::compute_named(compute);
    graft::models::set_compute(*model, products);
    const bool split = products == Compute::f32_split && graft::kernels::splits_f32();
    if (products == Compute::f32_split && !split)
      std::fputs("bench_step: f32-split is for AMX tiles, which this processor lacks: f32\n",
                 stderr);
    compute = products == Compute::bf16 ? "bf16" : split ? "f32-split" : "f32";
    graft::AdapterModel adapters(model->sites(), graft::all_methods<float>());
    for (char& c : method) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    auto config = adapters.registry().at(method).defaults;
    graft::ConfigValue::List names;
    std::string name;
    for (char c : targets + ",") {
      if (c != ',')
        name += c;
      else if (!name.empty())
        names.emplace_back(std::exchange(name, ""));
    }
    for (const char* key : {"r", "init_r"})
      if (config.contains(key)) config[key] = rank;
    if (config.contains("lora_alpha")) config["lora_alpha"] = 2 * rank;
    config["target_modules"] =
        targets == "all-linear" ? graft::ConfigValue(targets) : graft::ConfigValue(names);
    if (full) {
      // Every linear weight is trained whole; one low-rank adapter of rank one is left to carry the
      // configuration.
      graft::ConfigValue::List whole;
      for (const char* module :
           {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"})
        whole.emplace_back(module);
      config["modules_to_save"] = whole;
      config["target_modules"] = graft::ConfigValue("lm_head");
      config["r"] = 1;
    }
    graft::TorchGenerator generator(0);
    Index trainable = 0;
    if (frozen) {
      auto& site = model->embed_tokens;
      site.adapters().push_back({"leaf", std::make_shared<EmbeddingLeaf>()});
      site.activate({"leaf"});
    } else {
      trainable = adapters.add("default", config, generator).trainable_elements();
    }
    graft::AdamW optimizer(adapters.parameters(), {.learning_rate = 1e-4});
    graft::models::Batch batch;
    batch.batch = batch_size;
    batch.seq_len = tokens;
    std::mt19937 random(1);
    for (Index i = 0; i < batch_size * tokens; ++i)
      batch.ids.push_back(
          static_cast<std::int32_t>(random() % static_cast<unsigned>(model->info().vocabulary)));
    batch.labels.assign(batch.ids.begin(), batch.ids.end());
    std::vector<double> times;
    double first = 0, last = 0;
    graft::Profile profile;
    for (Index step = 0; step < steps; ++step) {
      std::optional<graft::Profile::Recording> recording;
      if ((profiled || !trace.empty()) && step + 1 == steps) recording.emplace(&profile);
      const auto begin = std::chrono::steady_clock::now();
      graft::Tape tape({.seed = static_cast<std::uint64_t>(step), .bf16_saved = storage == "bf16"});
      auto loss = adapters.training_loss(tape, model->passes(tape, batch));
      last = loss.item();
      if (step == 0) first = last;
      if (const auto extra = adapters.auxiliary_loss(tape)) loss = add(loss, extra);
      tape.backward(loss);
      optimizer.step();
      optimizer.zero_grad();
      times.push_back(
          1000 * std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    }
    if (profiled) std::fputs(profile.table().c_str(), stderr);
    if (!trace.empty() && !(std::ofstream(trace) << profile.chrome_trace()))
      throw graft::IoError(trace + ": cannot be written");
    if (times.size() > 1) times.erase(times.begin());  // the first step warms up
    std::sort(times.begin(), times.end());
    const double median = times[times.size() / 2];
    const auto held = graft::MemoryPool::global().stats();
    const graft::io::Json report{
        {"tokens_per_second", 1000.0 * static_cast<double>(batch_size * tokens) / median},
        {"step_ms", median},
        {"best_ms", times.front()},
        {"peak_rss_mib", graft::bench::peak_rss_mib()},
        {"pool_peak_mib", mib(graft::MemoryPool::global().stats().peak_bytes_in_use)},
        {"pool_held_mib", mib(held.bytes_in_use + held.bytes_cached)},
        {"trainable", trainable},
        {"compute", compute},
        {"isa", graft::kernels::isa_name(graft::kernels::active_isa())},
        {"loss_first", first},
        {"loss_last", last}};
    if (json)
      std::printf("%s\n", graft::io::json_text(report, 2).c_str());
    else
      std::printf(
          "%.0f tokens/s, step %.1f ms (best %.1f ms), peak %.0f MiB, %td trained, loss %.4f -> "
          "%.4f\n",
          1000.0 * static_cast<double>(batch_size * tokens) / median, median, times.front(),
          graft::bench::peak_rss_mib(), trainable, first, last);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_step: %s\n", error.what());
    return 2;
  }
}
