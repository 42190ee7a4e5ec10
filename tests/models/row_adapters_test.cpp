#include <catch2/catch.hpp>
#include <cmath>
#include <map>

#include "adapters/prompts/tiny_llama.hpp"
#include "graft/adapters/prompts/prefix_tuning.hpp"
#include "graft/adapters/prompts/prompt_tuning.hpp"
#include "graft/models/bert.hpp"
#include "graft/models/gpt2.hpp"

// Rows of a batch under prompts and prefixes of their own lengths, on models whose positions are
// absolute.

using graft::Index;
using Wide = graft::BasicTensor<double>;

namespace {

class Weights final : public graft::models::BasicWeights<double> {
 public:
  bool has(const std::string&) const override { return true; }
  Wide tensor(const std::string& name, const graft::Shape& shape) const override {
    unsigned seed = 5;
    for (const char c : name) seed = seed * 31 + static_cast<unsigned char>(c);
    return checks::random_tensor<double>(shape, seed, 0.4);
  }
  graft::BasicAnyLinear<double> linear(const std::string& name, Index out,
                                       Index in) const override {
    return graft::BasicDenseLinear<double>(tensor(name + ".weight", {out, in}),
                                           tensor(name + ".bias", {out}));
  }
  graft::BasicEmbeddingTable<double> embedding(const std::string& name, Index rows,
                                               Index dim) const override {
    return graft::BasicEmbeddingTable<double>(tensor(name + ".weight", {rows, dim}));
  }
};

void check_rows(graft::models::BasicModel<double>& model, bool last_tokens) {
  graft::BasicAdapterModel<double> adapters(model.sites(), graft::all_methods<double>());
  graft::PromptTuningConfig prompt;
  prompt.prompt.num_virtual_tokens = 3;
  adapters.add("prompt", prompt, 1);
  prompt.prompt.num_virtual_tokens = 1;
  adapters.add("short", prompt, 2);
  graft::PrefixTuningConfig prefix;
  prefix.prompt.num_virtual_tokens = 2;
  adapters.add("prefix", prefix, 3);

  graft::models::BasicBatch<double> batch;
  batch.batch = 5;
  batch.seq_len = 4;
  batch.ids = {1, 5, 9, 2, 7, 7, 2, 3, 4, 4, 6, 8, 1, 2, 3, 4, 9, 9, 1, 5};
  batch.mask = {1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1};
  const auto run = [&](const std::vector<std::string>& rows) {
    auto b = batch;
    b.row_adapters = rows;
    graft::BasicTape<double> tape({.gradients = false, .training = false});
    auto y = model.logits(tape, b);
    if (last_tokens) y = slice(y, 1, y.dim(1) - b.seq_len, b.seq_len);
    return y.value().clone();
  };
  const std::vector<std::string> rows{"prefix", "__base__", "prompt", "short", "prompt"};
  const auto mixed = run(rows);
  const Index each = mixed.size() / batch.batch;
  for (Index r = 0; r < batch.batch; ++r) {
    const auto& name = rows[static_cast<std::size_t>(r)];
    adapters.activate(name == "__base__" ? std::vector<std::string>{}
                                         : std::vector<std::string>{name});
    const auto alone = run({});
    for (Index i = r * each; i < (r + 1) * each; ++i) {
      INFO(name);
      CHECK(mixed[i] == Approx(alone[i]).margin(1e-9));
    }
  }
}

}  // namespace

TEST_CASE("Rows of GPT-2 run prompts and prefixes of their own") {
  graft::models::Gpt2Config c;
  c.vocabulary = 11;
  c.hidden_size = 12;
  c.intermediate_size = 16;
  c.layers = 2;
  c.heads = 3;
  c.max_positions = 12;
  graft::models::BasicGpt2<double> model(c, Weights());
  check_rows(model, true);
}

TEST_CASE("Rows of BERT run prompts and prefixes of their own") {
  for (const char* type : {"bert", "roberta"}) {
    graft::models::BertConfig c;
    c.model_type = type;
    c.vocabulary = 11;
    c.hidden_size = 12;
    c.intermediate_size = 16;
    c.layers = 2;
    c.heads = 3;
    c.max_positions = 16;
    c.token_types = 0;
    c.task = graft::models::Task::sequence_classification;
    graft::models::BasicBert<double> model(c, Weights());
    check_rows(model, false);
  }
}

TEST_CASE("A decoder that classifies reads the last real token of a row, wherever padding is") {
  graft::models::Gpt2Config c;
  c.vocabulary = 11;
  c.hidden_size = 12;
  c.intermediate_size = 16;
  c.layers = 1;
  c.heads = 3;
  c.max_positions = 12;
  c.classifier = {.classes = 4, .padding_id = 2};
  const graft::models::BasicGpt2<double> model(c, Weights());
  const auto run = [&](Index batch, std::vector<std::int32_t> ids,
                       std::vector<unsigned char> mask) {
    graft::models::BasicBatch<double> b;
    b.batch = batch;
    b.seq_len = std::ssize(ids) / batch;
    b.ids = std::move(ids);
    b.mask = std::move(mask);
    graft::BasicTape<double> tape({.gradients = false, .training = false});
    return model.logits(tape, b).value().clone();
  };
  const auto alone = run(1, {5, 9, 3}, {});
  REQUIRE(alone.shape() == graft::Shape{1, 4});
  // By the padding id, by the mask, by both; padding id and mask of the second row are one token.
  const auto rows = run(3, {5, 9, 3, 2, 2, 5, 9, 3, 7, 7, 5, 9, 3, 2, 7},
                        {1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 0, 0});
  for (Index r = 0; r < 3; ++r)
    for (Index k = 0; k < 4; ++k) CHECK(rows(r, k) == Approx(alone(0, k)).margin(1e-12));
  CHECK(run(1, {5, 9, 4}, {})(0, 0) != Approx(alone(0, 0)).margin(1e-6));
  graft::BasicTape<double> tape;
  graft::models::BasicBatch<double> one;
  one.batch = 1;
  one.seq_len = 3;
  one.ids = {5, 9, 3};
  one.labels = {2};
  double sum = 0;
  for (Index k = 0; k < 4; ++k) sum += std::exp(alone(0, k));
  CHECK(model.loss(tape, one).item() == Approx(std::log(sum) - alone(0, 2)));
  CHECK_THROWS_WITH(model.token_loss(tape, one, nullptr, nullptr),
                    Catch::Contains("classifies rows"));
}
