#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/base/error.hpp"
#include "graft/base/types.hpp"
#include "graft/text/jinja.hpp"
#include "graft/text/tokenizer.hpp"

namespace graft::inline v0_1::text {

struct ChatMessage {
  std::string role;  ///< "system", "user", "assistant", or what else the template knows
  std::string content;
};

/// A conversation as the model reads it.
struct RenderedChat {
  std::string text;
  /// What the assistant wrote (with `mark_assistant`), each with the mark that ends the turn (such
  /// as "<|im_end|>").
  std::vector<TextRange> assistant;
};

struct ChatOptions {
  bool add_generation_prompt = false;  ///< ends with the beginning of an assistant's turn
  bool mark_assistant = true;          ///< finds the ranges of the assistant's answers
  std::string bos;                     ///< the template's `bos_token`
  std::string eos;                     ///< … and `eos_token`
  /// Further variables of the template, such as `enable_thinking`.
  jinja::Dict variables;
  /// The time that `strftime_now` gives; the current one if absent. A fixed one makes data
  /// preparation repeatable where a template prints the date.
  std::optional<std::time_t> now;
};

struct EncodedChat {
  std::vector<std::int32_t> ids;
  std::vector<std::uint8_t> assistant;  ///< 1 for tokens that the assistant wrote
};

/// A chat template: the model's own Jinja text, or a built-in one by name.
///
///     const ChatTemplate chat = ChatTemplate::of(tokenizer);
///     const EncodedChat encoded = chat.encode(tokenizer, messages);
class ChatTemplate {
 public:
  /// @param source  Jinja text
  /// Errors: ValueError with the line for what is not Jinja or not in the supported part of it.
  explicit ChatTemplate(std::string_view source) : template_(source) {}

  /// A built-in template: chatml, llama2, llama3, gemma, zephyr, mistral.
  /// Errors: ValueError that lists the names.
  static ChatTemplate named(std::string_view name) {
    for (const auto& [known, source] : kBuiltIn) {
      if (known == name) return ChatTemplate(source);
    }
    std::string names;
    for (const auto& [known, source] : kBuiltIn) names += concat(names.empty() ? "" : ", ", known);
    throw ValueError(concat("no chat template is called '", name, "'; built in: ", names));
  }

  /// The template of a tokenizer. Errors: ValueError if the model has none.
  static ChatTemplate of(const Tokenizer& tokenizer) {
    if (tokenizer.chat_template().empty()) {
      throw ValueError(
          "the model has no chat template; choose a built-in one by name: chatml, "
          "llama2, llama3, gemma, zephyr, mistral");
    }
    return ChatTemplate(tokenizer.chat_template());
  }

  /// Renders a conversation.
  ///
  /// The assistant's ranges are the template's `{% generation %}` blocks if it has any; else an
  /// assistant's turn is what the template adds for it to the conversation before with the
  /// generation prompt (from its content on, if the template has no such prompt); else, where the
  /// template rewrites earlier turns, it is its content, or the part of that after "</think>".
  /// Errors: ValueError, also for what the template itself refuses (a role, an order of roles), and
  /// when an answer is not found.
  RenderedChat render(std::span<const ChatMessage> messages,
                      const ChatOptions& options = {}) const {
    if (messages.empty()) throw ValueError("chat template: a conversation without messages");
    const jinja::Rendered whole = run(messages, options, options.add_generation_prompt);
    RenderedChat chat;
    chat.text = whole.text;
    if (!options.mark_assistant) return chat;
    if (!whole.generated.empty()) {
      for (const auto& range : whole.generated)
        chat.assistant.push_back({static_cast<Index>(range.begin), static_cast<Index>(range.end)});
      return chat;
    }
    find_turns(messages, options, chat);
    return chat;
  }

  /// Tokens of a conversation, and which of them the assistant wrote. The template writes its
  /// special tokens as text, so none are added around it. bos and eos of the options are filled in
  /// from the tokenizer if they are empty.
  EncodedChat encode(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                     ChatOptions options = {}) const {
    const auto fill = [&](std::string& text, std::int32_t id) {
      if (text.empty() && id != kNoToken) text = tokenizer.token(id);
    };
    fill(options.bos, tokenizer.bos_id());
    fill(options.eos, tokenizer.eos_id());
    const RenderedChat chat = render(messages, options);
    MarkedEncoding marked = tokenizer.encode_marked(chat.text, chat.assistant);
    return {std::move(marked.ids), std::move(marked.marked)};
  }

 private:
  /// Templates of our own wording with the published formats; for models that come without one.
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 6> kBuiltIn{{
      {"chatml",
       "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"
       "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"},
      {"llama2",
       "{% set ns = namespace(system='') %}{% for m in messages %}{% if m.role == 'system' %}"
       "{% set ns.system = '<<SYS>>\\n' + m.content + '\\n<</SYS>>\\n\\n' %}"
       "{% elif m.role == 'user' %}{{ bos_token + '[INST] ' + (ns.system + m.content) | trim + "
       "' [/INST]' }}{% set ns.system = '' %}{% else %}{{ ' ' + m.content | trim + ' ' + eos_token "
       "}}{% endif %}{% endfor %}"},
      {"llama3",
       "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + "
       "'<|end_header_id|>\\n\\n' + m.content | trim + '<|eot_id|>' }}{% endfor %}"
       "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"
       "{% endif %}"},
      {"gemma",
       "{{ bos_token }}{% set ns = namespace(system='') %}{% for m in messages %}"
       "{% if m.role == 'system' %}{% set ns.system = m.content + '\\n\\n' %}{% else %}"
       "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' + ns.system "
       "+ "
       "m.content | trim + '<end_of_turn>\\n' }}{% set ns.system = '' %}{% endif %}{% endfor %}"
       "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"},
      {"zephyr",
       "{% for m in messages %}{{ '<|' + m.role + '|>\\n' + m.content + eos_token + '\\n' }}"
       "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"},
      {"mistral",
       "{{ bos_token }}{% set ns = namespace(system='') %}{% for m in messages %}"
       "{% if m.role == 'system' %}{% set ns.system = m.content + '\\n\\n' %}"
       "{% elif m.role == 'user' %}{{ '[INST] ' + ns.system + m.content + ' [/INST]' }}"
       "{% set ns.system = '' %}{% else %}{{ m.content + eos_token }}{% endif %}{% endfor %}"},
  }};

  jinja::Rendered run(std::span<const ChatMessage> messages, const ChatOptions& options,
                      bool prompt) const {
    jinja::List list;
    for (const ChatMessage& message : messages) {
      if (!is_valid_utf8(message.role) || !is_valid_utf8(message.content))
        throw ValueError("chat template: a message is not UTF-8");
      list.emplace_back(jinja::Dict{{"role", message.role}, {"content", message.content}});
    }
    jinja::Dict variables = options.variables;
    variables.emplace_back("messages", std::move(list));
    variables.emplace_back("bos_token", options.bos);
    variables.emplace_back("eos_token", options.eos);
    variables.emplace_back("add_generation_prompt", prompt);
    const std::time_t now = options.now.value_or(std::time(nullptr));
    variables.emplace_back(
        "strftime_now", jinja::make_function([now](const jinja::Arguments& given) {
          const jinja::Value* format = given.find(0, "format");
          if (format == nullptr || format->string() == nullptr)
            throw ValueError("chat template: strftime_now needs a format");
          std::tm parts{};
          localtime_r(&now, &parts);
          std::array<char, 256> text{};
          const std::size_t length =
              std::strftime(text.data(), text.size(), format->string()->c_str(), &parts);
          return jinja::Value(std::string(text.data(), length));
        }));
    return template_.render(std::move(variables));
  }

  /// The rendering of the first messages, if the template accepts them by themselves.
  std::optional<std::string> part(std::span<const ChatMessage> messages, const ChatOptions& options,
                                  bool prompt) const {
    if (messages.empty()) return std::nullopt;
    try {
      return run(messages, options, prompt).text;
    } catch (const ValueError&) {
      return std::nullopt;
    }
  }

  void find_turns(std::span<const ChatMessage> messages, const ChatOptions& options,
                  RenderedChat& chat) const {
    const std::string_view text = chat.text;
    std::size_t at = 0;  // everything up to here belongs to earlier messages
    for (std::size_t i = 0; i < messages.size(); ++i) {
      const ChatMessage& message = messages[i];
      const std::string content = jinja::detail::strip(message.content, nullptr, true, true);
      if (message.role != "assistant") {
        const std::size_t found = text.find(content, at);
        if (found != text.npos) at = found + content.size();
        continue;
      }
      const auto before = part(messages.first(i), options, true);
      const auto after = part(messages.first(i + 1), options, false);
      std::size_t begin = 0, end = 0;
      if (before && after && text.starts_with(*before) && text.starts_with(*after) &&
          before->size() < after->size() && before->size() >= at) {
        begin = before->size();
        end = after->size();
        const std::size_t written = text.find(content, begin);
        // Without a generation prompt, the turn's heading is no part of the answer.
        if (written < end && part(messages.first(i), options, false) == before) begin = written;
        // Line breaks after the end mark belong to the format, not to the answer.
        const std::size_t least = written < end ? std::min(written + content.size(), end) : begin;
        while (end > least && (text[end - 1] == '\n' || text[end - 1] == ' ')) --end;
        if (end == least && written < end) end = after->size();
      } else {
        std::string_view answer = content;
        begin = text.find(answer, at);
        if (const std::size_t thought = answer.rfind("</think>");
            begin == text.npos && thought != answer.npos) {
          answer.remove_prefix(thought + std::string_view("</think>").size());
          answer.remove_prefix(std::min(answer.find_first_not_of(" \n"), answer.size()));
          begin = text.find(answer, at);
        }
        if (begin == text.npos) {
          throw ValueError(concat("chat template: cannot tell where the answer in message ", i + 1,
                                  " stands in the rendered text"));
        }
        end = begin + answer.size();
        // The mark that follows where the conversation ends with this turn ends it here too.
        std::string_view mark = after ? std::string_view(*after) : std::string_view();
        if (const std::size_t last = mark.rfind(answer); last != mark.npos) {
          mark.remove_prefix(last + answer.size());
          while (mark.ends_with('\n') || mark.ends_with(' ')) mark.remove_suffix(1);
          if (text.substr(end).starts_with(mark)) end += mark.size();
        }
      }
      chat.assistant.push_back({static_cast<Index>(begin), static_cast<Index>(end)});
      at = end;
    }
  }

  jinja::Template template_;
};

}  // namespace graft::inline v0_1::text
