#include "graft/adapters/memory/pyra.hpp"

#include "adapters/memory/tiny_model.hpp"
#include "graft/models/vit.hpp"

using graft::BasicTensor;
using graft::Index;
using graft::PYRAConfig;

namespace {

graft::models::VitConfig vit() {
  graft::models::VitConfig c;
  c.image_size = 9;
  c.patch_size = 3;
  c.channels = 2;
  c.hidden_size = 8;
  c.intermediate_size = 10;
  c.layers = 3;
  c.heads = 2;
  c.classes = 3;
  return c;
}

struct PyraSetup {
  graft::models::BasicVit<double> model{vit(), memory::weights<double>(true)};
  graft::BasicAdapterModel<double> adapters{model.sites(), graft::all_methods<double>()};

  explicit PyraSetup(std::vector<Index> schedule) {
    adapters.add("a", PYRAConfig{.merge_schedule = std::move(schedule)}, 1);
  }
  graft::AdapterSet<double>& set() { return adapters.at("a"); }
  const graft::PYRAStack<double>& stack() {
    for (const auto& placed : set().parts())
      if (auto* found = dynamic_cast<graft::PYRAStack<double>*>(placed.part.get())) return *found;
    throw graft::ValueError("no stack");
  }
  static graft::models::BasicBatch<double> batch() {
    graft::models::BasicBatch<double> b;
    b.batch = 2;
    b.pixels = checks::random_tensor<double>({2, 2, 9, 9}, 3);
    b.labels = {2, 0};
    return b;
  }
  BasicTensor<double> hidden(const graft::models::BasicBatch<double>& b) const {
    graft::BasicTape<double> tape({.gradients = false, .training = false});
    return model.hidden(tape, b).value().clone();
  }
};

}  // namespace

TEST_CASE("Merged tokens are fewer, stand for all, and have gradients") {
  PyraSetup setup({2, 0, 3});
  CHECK(setup.set().trainable_elements() == 2 + 3 + 2 * 3 * 8);
  const auto h = setup.hidden(PyraSetup::batch());
  CHECK(h.shape() == graft::Shape{2, 5, 8});
  for (const Index layer : {0, 1, 2}) {
    const auto& merged = setup.stack().last_merged(layer);
    double sum = 0;
    for (const double s : merged.sizes) sum += s;
    CHECK(sum == 20);
    CHECK(merged.sizes.size() == (layer == 2 ? 10 : 16));
    CHECK(merged.tokens.size() == (layer == 0 ? 4U : layer == 1 ? 0U : 6U));
    for (const Index t : merged.tokens) CHECK((t > 0 && t % 2 == 0));
    for (const Index t : merged.into) CHECK(t % 2 == 1);
  }
  memory::randomize(setup.set());
  CHECK(graft::gradient_check(
            [&](graft::BasicTape<double>& tape) {
              const auto y = setup.model.hidden(tape, PyraSetup::batch());
              return sum(mul(y, tape.constant(checks::random_tensor<double>(y.shape(), 5))));
            },
            setup.set().parameters(), 1e-5, 6)
            .relative_error < 1e-5);
}

TEST_CASE("Tokens that are the same are merged without a trace") {
  // Without positions, equal patches are equal tokens; sizes make attention count them.
  struct Flat final : graft::models::BasicWeights<double> {
    checks::RandomWeights<double> plain = memory::weights<double>(true);
    bool has(const std::string&) const override { return true; }
    BasicTensor<double> tensor(const std::string& name, const graft::Shape& shape) const override {
      auto t = plain.tensor(name, shape);
      if (name.ends_with("position_embeddings")) std::fill(t.begin(), t.end(), 0.0);
      return t;
    }
    graft::BasicAnyLinear<double> linear(const std::string& name, Index out,
                                         Index in) const override {
      return plain.linear(name, out, in);
    }
    graft::BasicEmbeddingTable<double> embedding(const std::string& name, Index rows,
                                                 Index dim) const override {
      return plain.embedding(name, rows, dim);
    }
  };
  graft::models::BasicVit<double> model(vit(), Flat());
  graft::BasicAdapterModel<double> adapters(model.sites(), graft::all_methods<double>());
  adapters.add("a", PYRAConfig{.merge_schedule = {3, 1, 1}}, 1);
  auto b = PyraSetup::batch();
  std::fill(b.pixels.begin(), b.pixels.end(), 0.7);
  const auto logits = [&] {
    graft::BasicTape<double> tape({.gradients = false, .training = false});
    return model.logits(tape, b).value().clone();
  };
  const auto merged = logits();
  const auto off = adapters.disabled();
  CHECK(checks::relative_error(merged, logits()) < 1e-10);
}

TEST_CASE("PYRA refuses what it cannot merge") {
  CHECK_THROWS_WITH(PyraSetup({1, 1}), Catch::Contains("schedule of 2 blocks"));
  CHECK_THROWS_WITH(PyraSetup({1, -1, 0}), Catch::Contains("-1"));
  PyraSetup much({5, 0, 0});
  CHECK_THROWS_WITH(much.hidden(PyraSetup::batch()), Catch::Contains("at most 4"));
  PyraSetup setup({1, 0, 0});
  auto b = PyraSetup::batch();
  b.row_adapters = {"a", "__base__"};
  CHECK_THROWS_WITH(setup.hidden(b), Catch::Contains("batch of their own"));
  CHECK_THROWS_AS(setup.adapters.merge(), graft::ValueError);
}
