#include "graft/models/bert.hpp"

#include <catch2/catch.hpp>
#include <string>
#include <utility>

#include "adapters/random_weights.hpp"
#include "graft/adapters/low_rank/lora_method.hpp"
#include "graft/compose/adapter_model.hpp"

using graft::Index;
using Bert = graft::models::BasicBert<double>;
using Weights = checks::RandomWeights<double>;

namespace {

graft::models::BertConfig bare() {
  graft::models::BertConfig c;
  c.vocabulary = 11;
  c.hidden_size = 8;
  c.intermediate_size = 12;
  c.layers = 1;
  c.heads = 2;
  c.max_positions = 16;
  return c;
}
bool has_pooler(const graft::BasicSiteTable<double>& table) {
  for (const auto* site : table.linear)
    if (site->path().find("pooler") != std::string::npos) return true;
  return false;
}

/// Weights of a file without those whose names begin so.
class Without final : public graft::models::BasicWeights<double> {
 public:
  explicit Without(std::string names, bool biases = false)
      : names_(std::move(names)), own_({.biases = biases}) {}
  bool has(const std::string& name) const override {
    return !name.starts_with(names_) && own_.has(name);
  }
  graft::BasicTensor<double> tensor(const std::string& name,
                                    const graft::Shape& shape) const override {
    return own_.tensor(name, shape);
  }
  graft::BasicAnyLinear<double> linear(const std::string& name, Index out,
                                       Index in) const override {
    return own_.linear(name, out, in);
  }
  graft::BasicEmbeddingTable<double> embedding(const std::string& name, Index rows,
                                               Index dim) const override {
    return own_.embedding(name, rows, dim);
  }

 private:
  std::string names_;
  Weights own_;
};

}  // namespace

TEST_CASE("An adapter of the pooler of BERT without a head merges, and changes no vector") {
  graft::MethodRegistry<double> methods;
  methods.add(graft::MethodList<graft::LoRAMethod<double>>{});
  Bert model(bare(), Weights());
  graft::models::BasicBatch<double> batch;
  batch.batch = 1;
  batch.seq_len = 3;
  batch.ids = {4, 5, 6};
  const auto before = model.embed(batch);
  graft::BasicAdapterModel<double> adapters(model.sites(), methods);
  const auto& set = adapters.add(
      "pooler",
      graft::LoRAConfig{
          .rank = 2, .alpha = 4, .target_modules = {"pooler.dense"}, .init_lora_weights = false},
      1);
  REQUIRE(set.parts().size() == 1);
  const auto& pooler = *model.sites().linear.back();
  CHECK(pooler.path() == "pooler.dense");
  const auto old = pooler.base().dense_weight().clone();
  const auto a = set.parameters()[0].value(), b = set.parameters()[1].value();
  adapters.merge();
  const auto merged = pooler.base().dense_weight();
  for (Index o = 0; o < 8; ++o)
    for (Index i = 0; i < 8; ++i)
      CHECK(merged(o, i) == Approx(old(o, i) + 2 * (b(o, 0) * a(0, i) + b(o, 1) * a(1, i))));
  CHECK(checks::relative_error(model.embed(batch), before) == 0);
}

TEST_CASE(
    "BERT without a head has a pooler where the file has one, not as a stack beside a model") {
  Bert model(bare(), Weights());
  CHECK(has_pooler(model.sites()));
  CHECK_FALSE(has_pooler(model.sites().mirror({})->sites()));
  CHECK_FALSE(has_pooler(Bert(bare(), Without("pooler")).sites()));
}

TEST_CASE("The decoder of a masked language model has its own bias before the one beside it") {
  auto config = bare();
  config.task = graft::models::Task::masked_language;
  const auto expect = [&](const char* missing, const char* bias) {
    const Without weights(missing, true);
    const Bert model(config, weights);
    const auto found = model.sites().linear.back()->base().bias();
    CHECK(checks::relative_error(found, weights.tensor(bias, {11})) == 0);
  };
  expect("nothing", "cls.predictions.decoder.bias");
  expect("cls.predictions.bias", "cls.predictions.decoder.bias");
  expect("cls.predictions.decoder.bias", "cls.predictions.bias");
}
