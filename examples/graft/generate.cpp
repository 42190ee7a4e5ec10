#include "graft/train/generate.hpp"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>
#include <optional>

#include "graft/models/compute.hpp"
#include "graft/text/chat_template.hpp"
#include "session.hpp"

namespace cli {
namespace {

using graft::text::ChatMessage;

struct GenerateSettings {
  std::string model, prompt, chat, system, chat_template, compute = "auto", activations = "auto";
  std::vector<std::string> adapters;
  graft::GenerateConfig config{.max_tokens = 128, .top_p = 0.95};
  int threads = 0;
  bool interactive = false, json = false;
};

void write(const std::string& text) {
  std::fputs(text.c_str(), stdout);
  std::fflush(stdout);
}

class Generator {
 public:
  explicit Generator(const GenerateSettings& settings)
      : s_(settings),
        model_(load_causal(settings.model)),
        tokenizer_(load_tokenizer(settings.model)),
        adapters_(model_->sites(), methods()) {
    graft::models::set_compute(*model_, graft::models::compute_named(s_.compute));
    graft::models::set_activations(*model_, graft::models::activations_named(s_.activations));
    load_adapters(adapters_, settings.adapters, settings.model);
    if (!s_.chat_template.empty())
      template_.emplace(graft::text::ChatTemplate::named(s_.chat_template));
  }

  int run() {
    catch_interrupts();
    if (s_.interactive) return converse();
    std::vector<std::int32_t> prompt;
    if (s_.chat.empty()) {
      prompt = tokenizer_.encode(s_.prompt);
    } else {
      auto messages = opening();
      messages.push_back({"user", s_.chat});
      prompt = encode(messages);
    }
    if (!s_.json && s_.chat.empty()) write(s_.prompt);
    const auto [ids, text] = answer(prompt);
    if (s_.json) {
      print_json({{"prompt_tokens", prompt.size()}, {"ids", ids}, {"text", text}});
    } else {
      write("\n");
    }
    return was_interrupted() ? 130 : 0;
  }

 private:
  std::vector<ChatMessage> opening() const {
    std::vector<ChatMessage> messages;
    if (!s_.system.empty()) messages.push_back({"system", s_.system});
    return messages;
  }
  std::vector<std::int32_t> encode(const std::vector<ChatMessage>& messages) {
    if (!template_) template_.emplace(graft::text::ChatTemplate::of(tokenizer_));
    graft::text::ChatOptions options;
    options.add_generation_prompt = true;
    options.mark_assistant = false;
    return template_->encode(tokenizer_, messages, options).ids;
  }
  /// Tokens and text of a continuation, which is printed while it comes.
  std::pair<std::vector<std::int32_t>, std::string> answer(
      const std::vector<std::int32_t>& prompt) {
    auto config = s_.config;
    config.end_ids = tokenizer_.end_ids();
    graft::text::StreamDecoder stream(tokenizer_);
    std::string text;
    const auto show = [&](const std::string& piece) {
      text += piece;
      if (!s_.json) write(piece);
    };
    auto ids = graft::generate(*model_, prompt, config, [&](std::int32_t id) {
      show(stream.push(id));
      return !was_interrupted();
    });
    show(stream.finish());
    return {std::move(ids), text};
  }
  /// Questions from standard input, each with the conversation so far.
  int converse() {
    auto messages = opening();
    for (std::string line; !was_interrupted();) {
      if (on_terminal()) write("> ");
      if (!std::getline(std::cin, line)) break;
      if (line.empty()) continue;
      messages.push_back({"user", line});
      messages.push_back({"assistant", answer(encode(messages)).second});
      write("\n");
    }
    return was_interrupted() ? 130 : 0;
  }

  const GenerateSettings& s_;
  std::unique_ptr<graft::models::CausalModel> model_;
  graft::text::Tokenizer tokenizer_;
  graft::AdapterModel adapters_;
  std::optional<graft::text::ChatTemplate> template_;
};

int generate(const GenerateSettings& s) {
  if (int{!s.prompt.empty()} + int{!s.chat.empty()} + int{s.interactive} != 1)
    throw graft::ValueError("give one of --prompt, --chat and --interactive");
  if (s.interactive && s.json) throw graft::ValueError("--json: not with --interactive");
  set_threads(s.threads);
  return Generator(s).run();
}

}  // namespace

void add_generate(CLI::App& app, Command& run) {
  auto* c = app.add_subcommand("generate", "Continue a prompt or answer a question");
  auto s = std::make_shared<GenerateSettings>();
  auto unused = std::make_shared<std::string>();
  c->option_defaults()->always_capture_default();
  c->add_option("--config", *unused, "JSON file with any of these options; the command line wins");
  c->add_option("--model", s->model, "GGUF file or Hugging Face folder")->required();
  c->add_option("--adapter", s->adapters,
                "Adapter FOLDER or NAME=FOLDER; may be repeated, or separated by commas: all are "
                "active")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->delimiter(',');
  c->add_option("--prompt", s->prompt, "Text to continue");
  c->add_option("--chat", s->chat, "A question, through the model's chat template");
  c->add_flag("--interactive", s->interactive,
              "A conversation: a question a line from standard input");
  c->add_option("--system", s->system, "System message of the chat");
  c->add_option("--chat-template", s->chat_template,
                "Built-in template in place of the model's: chatml, llama2, llama3, gemma, zephyr, "
                "mistral");
  auto& g = s->config;
  c->add_option("--max-tokens", g.max_tokens, "At most so many tokens")->check(CLI::PositiveNumber);
  c->add_option("--temperature", g.temperature, "0: always the likeliest token")
      ->check(CLI::NonNegativeNumber);
  c->add_option("--top-k", g.top_k, "Only the k likeliest tokens; 0: all")
      ->check(CLI::NonNegativeNumber);
  c->add_option("--top-p", g.top_p, "Only the likeliest tokens up to this share")
      ->check(CLI::Range(1e-6, 1.0));
  c->add_option("--seed", g.seed, "Of the draws");
  c->add_option("--activations", s->activations,
                "Input of a token's products with quantised weights: auto (int8), int8 (rounded to "
                "8 bits by blocks of 32), f32")
      ->check(CLI::IsMember({"auto", "int8", "f32"}));
  c->add_option("--compute", s->compute,
                "Products of the prompt: auto (bf16 where it is fast), f32, bf16, f32-split")
      ->check(CLI::IsMember({"auto", "f32", "bf16", "f32-split"}));
  c->add_option("--threads", s->threads, "0: all cores")->check(CLI::NonNegativeNumber);
  c->add_flag("--json", s->json, "Print one JSON object");
  c->callback([&run, s, unused] { run = [s, unused] { return generate(*s); }; });
}

}  // namespace cli
