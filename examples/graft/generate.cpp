#include <cstdio>

#include "common.hpp"
#include "graft/text/chat_template.hpp"
#include "graft/train/generate.hpp"

namespace cli {
namespace {

struct Settings {
  std::string model, prompt, chat, system, adapters;
  graft::Index max_tokens = 128, top_k = 0;
  double temperature = 0.8, top_p = 0.95;
  std::uint64_t seed = 0;
  int threads = 0;
  bool json = false;
};

int generate(const Settings& s) {
  if (s.prompt.empty() == s.chat.empty()) throw graft::ValueError("give either --prompt or --chat");
  set_threads(s.threads);
  const auto model = load_causal(s.model);
  const auto tokenizer = load_tokenizer(s.model);
  graft::AdapterModel adapters(model->sites(), methods());
  load_adapters(adapters, split(s.adapters, ','));
  std::vector<std::int32_t> prompt;
  if (!s.chat.empty()) {
    std::vector<graft::text::ChatMessage> messages;
    if (!s.system.empty()) messages.push_back({"system", s.system});
    messages.push_back({"user", s.chat});
    graft::text::ChatOptions options;
    options.add_generation_prompt = true;
    prompt = graft::text::ChatTemplate::of(tokenizer).encode(tokenizer, messages, options).ids;
  } else {
    prompt = tokenizer.encode(s.prompt);
  }
  graft::train::GenerateConfig config;
  config.max_tokens = s.max_tokens;
  config.temperature = s.temperature;
  config.top_k = s.top_k;
  config.top_p = s.top_p;
  config.seed = s.seed;
  config.end_ids = tokenizer.end_ids();
  graft::text::StreamDecoder stream(tokenizer);
  if (!s.json && s.chat.empty()) std::printf("%s", s.prompt.c_str());
  const auto ids = graft::train::generate(*model, prompt, config, [&](std::int32_t id) {
    if (!s.json) {
      std::printf("%s", stream.push(id).c_str());
      std::fflush(stdout);
    }
    return true;
  });
  if (s.json)
    print_json(
        {{"prompt_tokens", prompt.size()}, {"ids", ids}, {"text", tokenizer.decode(ids, true)}});
  else
    std::printf("\n");
  return 0;
}

}  // namespace

void add_generate(CLI::App& app, Command& run) {
  auto* c = app.add_subcommand("generate", "Continue a prompt or answer a question");
  auto s = std::make_shared<Settings>();
  c->option_defaults()->always_capture_default();
  c->add_option("--model", s->model, "GGUF file or Hugging Face folder")->required();
  c->add_option("--adapter", s->adapters,
                "Adapter folders separated by commas, each FOLDER or NAME=FOLDER");
  c->add_option("--prompt", s->prompt, "Text to continue");
  c->add_option("--chat", s->chat, "A question, through the model's chat template");
  c->add_option("--system", s->system, "System message of the chat");
  c->add_option("--max-tokens", s->max_tokens, "At most so many tokens")
      ->check(CLI::PositiveNumber);
  c->add_option("--temperature", s->temperature, "0: always the likeliest token")
      ->check(CLI::NonNegativeNumber);
  c->add_option("--top-k", s->top_k, "Only the k likeliest tokens; 0: all")
      ->check(CLI::NonNegativeNumber);
  c->add_option("--top-p", s->top_p, "Only the likeliest tokens up to this share")
      ->check(CLI::Range(1e-6, 1.0));
  c->add_option("--seed", s->seed, "Of the draws");
  c->add_option("--threads", s->threads, "0: all cores")->check(CLI::NonNegativeNumber);
  c->add_flag("--json", s->json, "Print one JSON object");
  c->callback([&run, s] { run = [s] { return generate(*s); }; });
}

}  // namespace cli
