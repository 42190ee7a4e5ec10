// Times prompt processing and generation, one token at a time, of a model file on fixed random
// tokens, beside what reading the weights and the cached keys and values once a token would take;
// prints one JSON object.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <optional>
#include <random>

#include "graft/base/profile.hpp"
#include "graft/io/json.hpp"
#include "graft/models/compute.hpp"
#include "graft/models/load.hpp"
#include "graft/train/generate.hpp"
#include "peak_rss.hpp"

namespace {

using graft::Index;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}
double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// Bytes a second that all threads together read from memory, best of some rounds over more than
/// the caches hold.
double read_bandwidth() {
  constexpr Index kPart = Index{1} << 20, kParts = 256;
  auto& pool = graft::ThreadPool::global();
  graft::AlignedBuffer<float> memory(static_cast<std::size_t>(kPart * kParts / 4));
  std::fill(memory.begin(), memory.end(), 0.0F);
  std::vector<float> sums(static_cast<std::size_t>(kParts));
  double best = 1e9;
  for (int round = 0; round < 8; ++round) {
    const auto begin = Clock::now();
    pool.parallel_for(kParts, [&](Index part) {
      sums[static_cast<std::size_t>(part)] = graft::kernels::dot(
          memory.data() + part * kPart / 4, memory.data() + part * kPart / 4, kPart / 4);
    });
    best = std::min(best, seconds_since(begin));
  }
  return static_cast<double>(kPart * kParts) / best;
}

/// Bytes of the keys and values of so many tokens.
double cache_bytes(const graft::models::CausalModel& model, double tokens) {
  const auto& info = model.info();
  return tokens * 2 * sizeof(float) *
         static_cast<double>(info.layers * info.kv_heads * info.head_dim);
}

/// Bytes of the frozen linear weights, head included: what a token has to read.
double linear_bytes(const graft::models::CausalModel& model) {
  double bytes = 0;
  for (const auto* site : model.sites().linear) {
    const auto& base = site->base();
    if (const auto* quantised = base.as<graft::QuantizedLinear>())
      bytes += static_cast<double>(quantised->weight_bytes());
    else
      bytes += 4 * static_cast<double>(base.in_features() * base.out_features());
  }
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  std::string file, compute = "auto", activations = "auto";
  Index prompt_tokens = 512, tokens = 64, rounds = 3;
  int threads = 0;
  bool json = false, profiled = false;
  CLI::App app("Times prompt processing and generation of a language model.");
  app.add_option("--model", file, "GGUF file or Hugging Face folder")->required();
  app.add_option("--prompt", prompt_tokens, "Tokens of the prompt")->check(CLI::PositiveNumber);
  app.add_option("--tokens", tokens, "Tokens to generate")->check(CLI::PositiveNumber);
  app.add_option("--rounds", rounds, "Times that both are done; medians count")
      ->check(CLI::PositiveNumber);
  app.add_option("--threads", threads)->check(CLI::NonNegativeNumber);
  app.add_option("--compute", compute, "Products of the prompt: auto, f32, bf16, f32-split");
  app.add_option("--activations", activations, "Input of products of few rows: auto, f32, int8");
  app.add_flag("--json", json);
  app.add_flag("--profile", profiled, "Also print where the time of the tokens goes");
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
    graft::models::set_compute(*model, graft::models::compute_named(compute));
    graft::models::set_activations(*model, graft::models::activations_named(activations));
    std::mt19937 random(1);
    const auto vocabulary = static_cast<unsigned>(model->info().vocabulary);
    std::vector<double> prompt_times, token_times;
    graft::Profile profile;
    std::clock_t processor_time = 0;
    double best_time = 1e9;
    for (Index round = 0; round < rounds; ++round) {
      graft::BasicKvCache<float> cache;
      graft::models::Batch batch;
      batch.batch = 1;
      batch.seq_len = prompt_tokens;
      for (Index i = 0; i < prompt_tokens; ++i)
        batch.ids.push_back(static_cast<std::int32_t>(random() % vocabulary));
      std::vector<double> times;
      for (Index i = 0; i <= tokens; ++i) {
        std::optional<graft::Profile::Recording> recording;
        if (profiled && i > 0) recording.emplace(&profile);
        const auto begin = Clock::now();
        const auto processor_begin = std::clock();
        graft::Tape tape({.gradients = false, .training = false});
        const auto logits = model->next_logits(tape, batch, cache);
        const auto best = graft::likeliest_token(std::span<const float>(logits.span()));
        (i == 0 ? prompt_times : times).push_back(seconds_since(begin));
        if (i > 0) processor_time += std::clock() - processor_begin;
        batch.ids = {best};
        batch.seq_len = 1;
      }
      best_time = std::min(best_time, *std::min_element(times.begin(), times.end()));
      token_times.push_back(median(times));
    }
    const double processor_ms = 1e3 * static_cast<double>(processor_time) / CLOCKS_PER_SEC /
                                static_cast<double>(rounds * tokens);
    const double bandwidth = read_bandwidth(), weights = linear_bytes(*model);
    const double cache =
        cache_bytes(*model, static_cast<double>(prompt_tokens) + static_cast<double>(tokens) / 2);
    const double bytes = weights + cache;
    const double rate = 1 / median(token_times);
    const double prompt_rate = static_cast<double>(prompt_tokens) / median(prompt_times);
    const graft::io::Json report{{"prompt_tokens_per_second", prompt_rate},
                                 {"tokens_per_second", rate},
                                 {"best_tokens_per_second", 1 / best_time},
                                 {"processor_ms_per_token", processor_ms},
                                 {"weight_mib", weights / (1 << 20)},
                                 {"cache_mib", cache / (1 << 20)},
                                 {"read_gib_per_second", bandwidth / (1 << 30)},
                                 {"bound_tokens_per_second", bandwidth / bytes},
                                 {"peak_rss_mib", graft::bench::peak_rss_mib()}};
    if (json)
      std::printf("%s\n", graft::io::json_text(report, 2).c_str());
    else
      std::printf(
          "prompt %.0f tokens/s, generation %.1f tokens/s (best %.1f, %.2f ms of all processors a "
          "token), "
          "%.0f %% of the %.1f that reading %.0f MiB of weights and %.0f of keys and values a "
          "token "
          "at %.1f GiB/s would allow\n",
          prompt_rate, rate, 1 / best_time, processor_ms, 100 * rate * bytes / bandwidth,
          bandwidth / bytes, weights / (1 << 20), cache / (1 << 20), bandwidth / (1 << 30));
    if (profiled) std::fputs(profile.table().c_str(), stderr);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_generate: %s\n", error.what());
    return 2;
  }
}
