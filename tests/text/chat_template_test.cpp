#include "graft/text/chat_template.hpp"

#include <catch2/catch.hpp>
#include <filesystem>
#include <string>
#include <vector>

#include "graft/io/json.hpp"
#include "graft/text/load_tokenizer.hpp"

namespace {

namespace fs = std::filesystem;
using namespace graft::text;
using Catch::Contains;

const std::vector<ChatMessage> kChat{
    {"system", "Be brief."}, {"user", "2 + 2?"}, {"assistant", "Four"}, {"user", "3 + 3?"}};

ChatOptions options(bool prompt = false) {
  ChatOptions made;
  made.add_generation_prompt = prompt;
  made.bos = "<s>";
  made.eos = "</s>";
  return made;
}

std::vector<std::string> answers(const RenderedChat& chat) {
  std::vector<std::string> list;
  for (const TextRange& range : chat.assistant) {
    list.push_back(chat.text.substr(static_cast<std::size_t>(range.begin),
                                    static_cast<std::size_t>(range.end - range.begin)));
  }
  return list;
}

using Strings = std::vector<std::string>;

}  // namespace

TEST_CASE("Templates render what Jinja renders") {
  const auto cases = graft::io::read_json(fs::path(GRAFT_SOURCE_DIR) / "tests" / "cases" / "chat" /
                                          "templates.json");
  for (const auto& entry : cases) {
    CAPTURE(entry.at("name").get<std::string>());
    const ChatTemplate chat(entry.at("template").get<std::string>());
    for (const auto& rendering : entry.at("renderings")) {
      std::vector<ChatMessage> messages;
      for (const auto& message : rendering.at("messages"))
        messages.push_back({message.at("role"), message.at("content")});
      ChatOptions asked = options(rendering.at("add_generation_prompt").get<bool>());
      asked.mark_assistant = false;
      if (rendering.at("rendered").is_null()) {
        CHECK_THROWS_AS(chat.render(messages, asked), graft::ValueError);
      } else {
        CHECK(chat.render(messages, asked).text == rendering.at("rendered").get<std::string>());
      }
    }
  }
}

TEST_CASE("Built-in templates write the published formats") {
  const auto text = [&](const char* name) {
    return ChatTemplate::named(name).render(kChat, options(true)).text;
  };
  CHECK(text("chatml") ==
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n2 + 2?<|im_end|>\n"
        "<|im_start|>assistant\nFour<|im_end|>\n<|im_start|>user\n3 + 3?<|im_end|>\n"
        "<|im_start|>assistant\n");
  CHECK(
      text("llama2") ==
      "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n2 + 2? [/INST] Four </s><s>[INST] 3 + 3? [/INST]");
  CHECK(
      text("llama3") ==
      "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|><|start_header_id|>user"
      "<|end_header_id|>\n\n2 + 2?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nFour"
      "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n3 + 3?<|eot_id|><|start_header_id|>"
      "assistant<|end_header_id|>\n\n");
  CHECK(text("gemma") ==
        "<s><start_of_turn>user\nBe brief.\n\n2 + 2?<end_of_turn>\n<start_of_turn>model\nFour"
        "<end_of_turn>\n<start_of_turn>user\n3 + 3?<end_of_turn>\n<start_of_turn>model\n");
  CHECK(text("zephyr") ==
        "<|system|>\nBe brief.</s>\n<|user|>\n2 + 2?</s>\n<|assistant|>\nFour</s>\n<|user|>\n"
        "3 + 3?</s>\n<|assistant|>\n");
  CHECK(text("mistral") == "<s>[INST] Be brief.\n\n2 + 2? [/INST]Four</s>[INST] 3 + 3? [/INST]");
  CHECK_THROWS_WITH(ChatTemplate::named("none"), Contains("'none'") && Contains("chatml"));
}

TEST_CASE("An answer is marked with the token that ends it and without the format's line breaks") {
  for (const auto& [name, answer] :
       std::vector<std::pair<std::string, std::string>>{{"chatml", "Four<|im_end|>"},
                                                        {"llama2", "Four </s>"},
                                                        {"llama3", "Four<|eot_id|>"},
                                                        {"gemma", "Four<end_of_turn>"},
                                                        {"zephyr", "Four</s>"},
                                                        {"mistral", "Four</s>"}}) {
    CAPTURE(name);
    CHECK(answers(ChatTemplate::named(name).render(kChat, options())) == Strings{answer});
    CHECK(answers(ChatTemplate::named(name).render(kChat, options(true))) == Strings{answer});
  }
}

TEST_CASE("Answers that repeat the question, or are empty, are found where they stand") {
  const std::vector<ChatMessage> echo{
      {"user", "same"}, {"assistant", "same"}, {"user", "same"}, {"assistant", ""}};
  const RenderedChat chat = ChatTemplate::named("chatml").render(echo, options());
  REQUIRE(chat.assistant.size() == 2);
  CHECK(answers(chat) == Strings{"same<|im_end|>", "<|im_end|>"});
  CHECK(chat.text.substr(0, static_cast<std::size_t>(chat.assistant[0].begin))
            .ends_with("assistant\n"));
}

TEST_CASE("Where earlier turns are rewritten, what is left of the answer is marked") {
  const auto cases = graft::io::read_json(fs::path(GRAFT_SOURCE_DIR) / "tests" / "cases" / "chat" /
                                          "templates.json");
  for (const auto& entry : cases) {
    if (entry.at("name") != "thoughts") continue;
    const ChatTemplate chat(entry.at("template").get<std::string>());
    const std::vector<ChatMessage> messages{{"user", "q"},
                                            {"assistant", "<think>\nhm\n</think>\n\nfine"},
                                            {"user", "and?"},
                                            {"assistant", "<think>a</think>b"}};
    CHECK(answers(chat.render(messages, options())) ==
          Strings{"fine[end]", "<think>a</think>b[end]"});
  }
  const ChatTemplate silent("{% for m in messages %}{{ m.role }}{% endfor %}");
  const std::vector<ChatMessage> two{{"user", "q"}, {"assistant", "a long answer"}, {"user", "x"}};
  CHECK(silent.render(two, {}).assistant.size() == 1);  // it did add "assistant"
  const ChatTemplate backwards("{% for m in messages[::-1] %}{{ m.role }};{% endfor %}");
  CHECK_THROWS_WITH(backwards.render(two, {}), Contains("message 2"));
}

TEST_CASE("Generation blocks say what the assistant wrote") {
  const ChatTemplate chat(
      "{% for m in messages %}{% if m.role == 'assistant' %}A:{% generation %}{{ m.content }}!"
      "{% endgeneration %}{% else %}U:{{ m.content }}{% endif %}{% endfor %}");
  CHECK(answers(chat.render(kChat, options())) == Strings{"Four!"});
}

TEST_CASE("Templates see the date and variables that they are given") {
  ChatOptions asked;
  asked.now = 0;
  asked.mark_assistant = false;
  asked.variables.emplace_back("enable_thinking", false);
  const ChatTemplate chat(
      "{{ strftime_now('%Y') }} {{ enable_thinking is false }} {{ tools is defined }}");
  const std::string text = chat.render(kChat, asked).text;
  CHECK((text == "1970 True False" || text == "1969 True False"));  // by the time zone
}

TEST_CASE("Encoded conversations mark the answer's tokens") {
  const auto tokenizer = load_tokenizer(fs::path(GRAFT_SOURCE_DIR) / "tests" / "cases" /
                                        "tokenizer" / "qwen2" / "tokenizer.json");
  const ChatTemplate chat = ChatTemplate::named("chatml");
  const EncodedChat encoded = chat.encode(tokenizer, kChat);
  CHECK(tokenizer.decode(encoded.ids) == chat.render(kChat).text);
  std::vector<std::int32_t> marked;
  for (std::size_t i = 0; i < encoded.ids.size(); ++i)
    if (encoded.assistant[i] != 0) marked.push_back(encoded.ids[i]);
  CHECK(tokenizer.decode(marked) == "Four<|im_end|>");
  CHECK_THROWS_WITH(ChatTemplate::of(tokenizer), Contains("chatml"));
  CHECK_THROWS_AS(chat.render({}), graft::ValueError);
}
