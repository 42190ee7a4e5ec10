#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <optional>

#include "graft/autograd/gradient_check.hpp"
#include "graft/autograd/ops/reduce.hpp"
#include "graft/compose/adapter_model.hpp"
#include "graft/compose/methods.hpp"
#include "graft/compose/stated_parameters.hpp"
#include "graft/io/json.hpp"
#include "graft/models/llama.hpp"
#include "graft/optim/adamw.hpp"

// What holds for every method of the registry. A method is tried at each kind of site that its
// descriptor has a function for; what it does not promise it says itself (MethodInfo, merge_reason,
// example): no method is named here.

using graft::BasicTape;
using graft::BasicTensor;
using graft::BasicVar;
using graft::ConfigValue;
using graft::Index;
using graft::Shape;

namespace {

constexpr Index kRows = 3;    // of a batch
constexpr Index kWide = 256;  // of single layers: many defaults need so much

template <class T>
BasicTensor<T> random_tensor(const Shape& shape, std::uint64_t seed, double scale) {
  graft::TorchGenerator generator(seed);
  auto t = BasicTensor<T>::empty(shape);
  generator.normal(t.data(), t.size(), 0.0, scale);
  return t;
}

template <class T>
bool same_bits(const BasicTensor<T>& a, const BasicTensor<T>& b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin());
}

/// Row r of the kRows that a result has.
template <class T>
BasicTensor<T> row_of(const BasicTensor<T>& y, Index r) {
  const Index each = y.size() / kRows;
  auto row = BasicTensor<T>::empty({each});
  std::copy_n(y.data() + r * each, each, row.data());
  return row;
}

template <class T>
double difference(const BasicTensor<T>& a, const BasicTensor<T>& b) {
  REQUIRE(a.size() == b.size());
  double error = 0, size = 1e-30;
  for (Index i = 0; i < a.size(); ++i) {
    error = std::max(error, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
    size = std::max(size, std::abs(static_cast<double>(b[i])));
  }
  return error / size;
}

/// Something with sites that maps an input to an output.
template <class T>
class Stage {
 public:
  virtual ~Stage() = default;
  /// Row i runs the adapter rows[i]; none: the active ones.
  virtual BasicVar<T> run(BasicTape<T>& tape, std::vector<std::string> rows) const = 0;
  virtual graft::BasicSiteTable<T>& sites() { return table_; }
  /// True if there is but one module, "proj".
  virtual bool single() const { return true; }
  /// The input, where it has a gradient.
  const graft::BasicParameter<T>& x() const { return x_; }

 protected:
  static std::shared_ptr<const graft::ForwardContext> context(std::vector<std::string> rows) {
    auto c = std::make_shared<graft::ForwardContext>();
    c->batch = kRows;
    c->task_ids.assign(static_cast<std::size_t>(kRows), 0);
    c->row_adapters = std::move(rows);
    return c;
  }
  graft::BasicSiteTable<T> table_;
  graft::BasicParameter<T> x_;
};

template <class T>
class LinearStage final : public Stage<T> {
 public:
  explicit LinearStage(graft::BasicAnyLinear<T> base, graft::ConvGeometry conv = {})
      : layer_("layers.0.proj", std::move(base)) {
    layer_.conv = std::move(conv);
    this->table_.info.layers = 1;
    this->table_.info.hidden_size = kWide;
    this->table_.linear = {&layer_};
    this->x_ = graft::BasicParameter<T>(random_tensor<T>({kRows, kWide}, 2, 1));
  }
  BasicVar<T> run(BasicTape<T>& tape, std::vector<std::string> rows) const override {
    tape.set_context(this->context(std::move(rows)));
    return layer_(tape.parameter(this->x_));
  }

 private:
  graft::BasicLinearSite<T> layer_;
};

template <class T>
class EmbeddingStage final : public Stage<T> {
 public:
  EmbeddingStage()
      : site_("layers.0.proj", graft::BasicEmbeddingTable<T>(random_tensor<T>({40, kWide}, 1, 1))) {
    this->table_.info.layers = 1;
    this->table_.info.hidden_size = kWide;
    this->table_.embedding = {&site_};
  }
  BasicVar<T> run(BasicTape<T>& tape, std::vector<std::string> rows) const override {
    tape.set_context(this->context(std::move(rows)));
    return site_(tape, std::vector<std::int32_t>{1, 7, 39, 0, 7, 2});
  }

 private:
  graft::BasicEmbeddingSite<T> site_;
};

template <class T>
class NormStage final : public Stage<T> {
 public:
  NormStage() {
    graft::BasicNorm<T> norm;
    norm.weight = random_tensor<T>({kWide}, 1, 1);
    norm.bias = random_tensor<T>({kWide}, 2, 1);
    norm.rms = false;
    site_ = graft::BasicNormSite<T>("layers.0.proj", norm);
    this->table_.info.layers = 1;
    this->table_.info.hidden_size = kWide;
    this->table_.norm = {&site_};
    this->x_ = graft::BasicParameter<T>(random_tensor<T>({kRows, kWide}, 2, 1));
  }
  BasicVar<T> run(BasicTape<T>& tape, std::vector<std::string> rows) const override {
    tape.set_context(this->context(std::move(rows)));
    return site_(tape.parameter(this->x_));
  }

 private:
  graft::BasicNormSite<T> site_;
};

template <class T>
class RandomWeights final : public graft::models::BasicWeights<T> {
 public:
  bool has(const std::string& name) const override { return !name.ends_with(".bias"); }
  BasicTensor<T> tensor(const std::string& name, const Shape& shape) const override {
    if (name.find("norm") != std::string::npos) return BasicTensor<T>::ones(shape);
    std::uint64_t seed = 5;
    for (const char c : name) seed = seed * 31 + static_cast<unsigned char>(c);
    return random_tensor<T>(shape, seed, 0.15);
  }
  graft::BasicAnyLinear<T> linear(const std::string& name, Index out, Index in) const override {
    return graft::BasicDenseLinear<T>(tensor(name + ".weight", {out, in}));
  }
  graft::BasicEmbeddingTable<T> embedding(const std::string& name, Index rows,
                                          Index dim) const override {
    return graft::BasicEmbeddingTable<T>(tensor(name + ".weight", {rows, dim}));
  }
};

/// A random LLaMA, for methods that need more than a layer.
template <class T>
class ModelStage final : public Stage<T> {
 public:
  BasicVar<T> run(BasicTape<T>& tape, std::vector<std::string> rows) const override {
    graft::models::BasicBatch<T> batch;
    batch.batch = kRows;
    batch.seq_len = 4;
    batch.ids = {1, 5, 9, 0, 7, 7, 2, 3, 11, 10, 4, 6};
    batch.mask = {1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1};
    batch.task_ids.assign(static_cast<std::size_t>(kRows), 0);
    batch.row_adapters = std::move(rows);
    const auto y = model_.logits(tape, batch);
    // Virtual tokens come first.
    return slice(y, 1, y.dim(1) - 4, 4);
  }
  bool single() const override { return false; }
  graft::BasicSiteTable<T>& sites() override { return model_.sites(); }

 private:
  static graft::models::LlamaConfig config() {
    graft::models::LlamaConfig c;
    c.vocabulary = 24;
    c.hidden_size = 32;
    c.intermediate_size = 48;
    c.layers = 2;
    c.heads = 4;
    c.kv_heads = 2;
    c.head_dim = 8;
    c.max_positions = 64;
    c.rope.dim = 8;
    return c;
  }
  graft::models::BasicLlama<T> model_{config(), RandomWeights<T>()};
};

template <class T>
graft::BasicDenseLinear<T> dense_layer() {
  return graft::BasicDenseLinear<T>(random_tensor<T>({kWide, kWide}, 1, 0.1),
                                    random_tensor<T>({kWide}, 3, 0.1));
}

enum class Kind { linear, conv, embedding, norm, model };
constexpr std::pair<Kind, const char*> kKinds[] = {{Kind::linear, "linear"},
                                                   {Kind::conv, "conv"},
                                                   {Kind::embedding, "embedding"},
                                                   {Kind::norm, "norm"},
                                                   {Kind::model, "model"}};

template <class T>
std::unique_ptr<Stage<T>> stage_of(Kind kind) {
  switch (kind) {
    case Kind::linear:
      return std::make_unique<LinearStage<T>>(dense_layer<T>());
    case Kind::conv:
      return std::make_unique<LinearStage<T>>(
          dense_layer<T>(), graft::ConvGeometry{.kernel = {2, 2}, .in_channels = kWide / 4});
    case Kind::embedding:
      return std::make_unique<EmbeddingStage<T>>();
    case Kind::norm:
      return std::make_unique<NormStage<T>>();
    case Kind::model:
      break;
  }
  return std::make_unique<ModelStage<T>>();
}

/// A stage with the adapters on it.
template <class T>
class Bench {
 public:
  explicit Bench(Kind kind) : Bench(stage_of<T>(kind)) {}
  explicit Bench(std::unique_ptr<Stage<T>> stage) : stage_(std::move(stage)) {}

  graft::BasicSiteTable<T>& sites() { return stage_->sites(); }
  graft::BasicAdapterModel<T>& adapters() { return adapters_; }
  const graft::BasicParameter<T>& x() const { return stage_->x(); }
  ConfigValue::Map config(const graft::MethodEntry<T>& entry) const {
    auto config = entry.example;
    if (stage_->single() && config.contains("target_modules"))
      config["target_modules"] = ConfigValue::List{ConfigValue("proj")};
    if (entry.experts)
      config["adapters"] = ConfigValue::Map{{"one", ConfigValue("")}, {"other", ConfigValue("")}};
    return config;
  }
  graft::AdapterSet<T>& add(const graft::MethodEntry<T>& entry, const std::string& name,
                            std::uint64_t seed = 5) {
    return add(entry, config(entry), name, seed);
  }
  graft::AdapterSet<T>& add(const graft::MethodEntry<T>& entry, const ConfigValue::Map& config,
                            const std::string& name, std::uint64_t seed = 5) {
    graft::TorchGenerator generator(seed);
    if (entry.experts && !adapters_.contains("one")) {
      auto lora = graft::all_methods<T>().at("LORA").defaults;
      lora["init_lora_weights"] = false;
      adapters_.add("one", lora, generator);
      adapters_.add("other", lora, generator);
    }
    return adapters_.add(name, config, generator);
  }
  BasicVar<T> run(BasicTape<T>& tape, std::vector<std::string> rows = {}) const {
    return stage_->run(tape, std::move(rows));
  }
  BasicTensor<T> output(std::vector<std::string> rows = {}) const {
    BasicTape<T> tape({.gradients = false, .training = false});
    return run(tape, std::move(rows)).value().clone();
  }
  std::vector<BasicTensor<T>> frozen() {
    std::vector<BasicTensor<T>> list;
    for (const auto* s : sites().linear) list.push_back(s->base().dense_weight().clone());
    for (const auto* s : sites().embedding) list.push_back(s->table().dense().clone());
    for (const auto* s : sites().norm) list.push_back(s->norm().weight.clone());
    return list;
  }
  bool is_frozen(const std::vector<BasicTensor<T>>& before) {
    const auto now = frozen();
    return std::equal(now.begin(), now.end(), before.begin(), before.end(), same_bits<T>);
  }

 private:
  std::unique_ptr<Stage<T>> stage_;
  graft::BasicAdapterModel<T> adapters_{stage_->sites(), graft::all_methods<T>()};
};

template <class T>
bool goes_to(const graft::MethodEntry<T>& entry, Kind kind) {
  const auto& p = entry.places;
  const bool alone = !p.by_role && !entry.experts;
  switch (kind) {
    case Kind::linear:
      return p.linear && alone;
    case Kind::conv:
      return p.linear && alone && entry.info.sites.find("conv") != std::string_view::npos;
    case Kind::embedding:
      return p.embedding && alone;
    case Kind::norm:
      // Others change norms beside linear layers, not as targets.
      return p.norm && alone && (!p.linear || entry.info.sites.starts_with("norm"));
    case Kind::model:
      break;
  }
  return p.hidden || p.attention || p.prompt || p.model || p.by_role || entry.experts;
}

/// Calls f(entry) for each method that goes to this kind of site.
template <class T, class F>
void each_method(Kind kind, F&& f) {
  int tried = 0;
  for (const auto& entry : graft::all_methods<T>().entries()) {
    if (!goes_to(entry, kind)) continue;
    ++tried;
    INFO(entry.info.peft_type);
    try {
      f(entry);
    } catch (const graft::Error& error) {
      FAIL_CHECK(error.what());
    }
  }
  CHECK(tried > 0);
}

/// Gives an adapter values that are not those of its beginning.
template <class T>
void disturb(graft::AdapterSet<T>& set, std::uint64_t seed) {
  for (const auto& p : set.parameters()) {
    auto value = p.value().clone();
    const auto noise = random_tensor<T>(value.shape(), seed++, 0.02);
    for (Index i = 0; i < value.size(); ++i) value[i] += noise[i];
    p.assign(std::move(value));
  }
  for (const auto& placed : set.parts()) placed.part->after_load();
}

/// What MethodInfo states about the number of trained elements; empty: no closed form.
template <class T>
std::optional<Index> stated_elements(const graft::AdapterSet<T>& set,
                                     const graft::BasicSiteTable<T>& table) {
  std::vector<std::string> paths;
  for (const auto& placed : set.parts())
    if (trainable_elements(placed.part->tensors()) > 0) paths.push_back(placed.path);
  return graft::stated_parameters(set.info(), set.config(), table, paths);
}

template <class T>
void descend(Bench<T>& bench, graft::AdapterSet<T>& set) {
  graft::BasicParameterGroup<T> group;
  group.parameters = set.parameters();
  graft::BasicAdamW<T> optimizer({group}, {.learning_rate = 1e-3});
  auto* procedure = set.procedure();
  for (Index step = 1; step <= 2; ++step) {
    const graft::StepInfo info{step, 2, 1e-3};
    if (procedure != nullptr) procedure->before_step(info);
    optimizer.zero_grad();
    BasicTape<T> tape({.seed = static_cast<std::uint64_t>(step)});
    const auto y = bench.run(tape);
    auto loss = sum(mul(y, tape.constant(random_tensor<T>(y.shape(), 4, 1))));
    if (const auto extra = set.auxiliary_loss(tape)) loss = add(loss, extra);
    tape.backward(loss);
    if (procedure != nullptr) procedure->after_backward(info);
    optimizer.step();
    if (procedure != nullptr) procedure->after_step(info);
  }
}

}  // namespace

TEST_CASE("Every method begins, counts, learns, merges and is saved as it says") {
  const auto folder =
      std::filesystem::temp_directory_path() / graft::concat("graft-every-method-", ::getpid());
  for (const auto& [kind, kind_name] : kKinds) {
    INFO(kind_name);
    each_method<float>(kind, [&, k = kind](const auto& entry) {
      Bench<float> bench(k);
      auto& adapters = bench.adapters();
      const auto original = bench.frozen();
      const auto base = bench.output();
      auto& set = bench.add(entry, "a");
      const auto expect_merging = [&] {
        if (!entry.info.mergeable) {
          CHECK_THROWS_AS(adapters.merge(), graft::ValueError);
          return;
        }
        const auto weights = bench.frozen();
        const auto before = bench.output();
        adapters.merge();
        CHECK(adapters.merged());
        CHECK(difference(bench.output(), before) < 1e-5);
        adapters.unmerge();
        CHECK(bench.is_frozen(weights));
        CHECK(same_bits(bench.output(), before));
      };
      if (!entry.info.starts_empty.empty()) {
        CHECK(set.trainable_elements() == 0);
        CHECK(same_bits(bench.output(), base));
        expect_merging();
        return;
      }
      CHECK(set.trainable_elements() > 0);
      // Formulas are those of plain layers.
      if (const auto stated = stated_elements(set, bench.sites()); stated && k != Kind::conv)
        CHECK(set.trainable_elements() == *stated);
      const auto begin = bench.output();
      if (entry.info.identity_at_init)
        CHECK(difference(begin, base) < 5e-5);
      else
        CHECK(difference(begin, base) > 5e-5);
      // Some inits move a part of the frozen weights into the adapter, once.
      const auto frozen = bench.frozen();
      const bool rewritten = !bench.is_frozen(original);

      disturb(set, 11);
      std::map<std::string, BasicTensor<float>> still;
      for (const auto& [key, tensor] : set.tensors())
        if (tensor.parameter && !tensor.parameter.trainable())
          still[key] = tensor.parameter.value().clone();
      descend(bench, set);
      CHECK(bench.is_frozen(frozen));
      if (set.procedure() == nullptr)
        for (const auto& [key, tensor] : set.tensors())
          if (still.contains(key)) CHECK(same_bits(tensor.parameter.value(), still[key]));
      const auto trained = bench.output();
      CHECK_FALSE(same_bits(trained, begin));

      {
        const auto off = adapters.disabled();
        if (!rewritten) CHECK(same_bits(bench.output(), base));
      }
      CHECK(same_bits(bench.output(), trained));

      expect_merging();
      CHECK(bench.is_frozen(frozen));

      adapters.save("a", folder);
      if (rewritten) {
        Bench<float> other(k);
        other.adapters().load("c", folder);
        CHECK(same_bits(other.output(), trained));
        return;
      }
      const auto config = graft::read_config_file(folder / "adapter_config.json");
      adapters.load("c", folder);
      CHECK(same_bits(bench.output(), trained));
      adapters.save("c", folder);
      CHECK(graft::read_config_file(folder / "adapter_config.json") == config);
      adapters.remove("c");

      disturb(bench.add(entry, "b", 6), 13);
      const auto second = bench.output();
      CHECK(difference(second, trained) > 0);
      adapters.activate({"a", "b"});
      CHECK(same_bits(bench.output(), second) != entry.info.adds_up);
      adapters.activate({"a"});
      CHECK(same_bits(bench.output(), trained));
    });
  }
  std::filesystem::remove_all(folder);
}

TEST_CASE("Every method's gradients are those of its function") {
  for (const auto& [kind, kind_name] : kKinds) {
    INFO(kind_name);
    each_method<double>(kind, [k = kind](const auto& entry) {
      if (!entry.info.exact_gradient) return;
      // The absolute value in its activation has a kink at zero, where the states of this small
      // model are; its own test checks it away from there.
      if (entry.info.peft_type == "IAPT") return;
      Bench<double> bench(k);
      auto& set = bench.add(entry, "a");
      disturb(set, 11);
      auto parameters = set.parameters();
      if (bench.x()) parameters.push_back(bench.x());
      BasicTape<double> probe;
      if (!bench.run(probe).requires_grad()) return;  // nothing is selected yet
      BasicTensor<double> weights;
      const auto check = graft::gradient_check(
          [&](BasicTape<double>& tape) {
            const auto y = bench.run(tape);
            if (!weights) weights = random_tensor<double>(y.shape(), 4, 1);
            return sum(mul(y, tape.constant(weights)));
          },
          parameters, 1e-5, 3, 1, 1e-4);
      CHECK(check.relative_error < 2e-5);
    });
  }
}

TEST_CASE("Every method of linear layers runs on frozen layers of any format") {
  // Blocks of Q8_0: a scale in half precision, 2⁻⁷, and 32 codes.
  std::vector<std::int8_t> blocks(static_cast<std::size_t>(kWide * kWide / 32 * 34));
  for (std::size_t i = 0; i < blocks.size(); ++i)
    blocks[i] = i % 34 == 0   ? std::int8_t{0}
                : i % 34 == 1 ? std::int8_t{0x20}
                              : static_cast<std::int8_t>(static_cast<int>(i * i * 37 % 255) - 127);
  std::vector<std::uint16_t> halves(static_cast<std::size_t>(kWide * kWide));
  for (std::size_t i = 0; i < halves.size(); ++i)
    halves[i] = static_cast<std::uint16_t>(0x3C00U + (i * 2654435761U >> 20 & 0x80FFU));
  using graft::QuantizedLinear;
  const std::pair<const char*, graft::AnyLinear> bases[] = {
      {"bf16", QuantizedLinear(graft::quant::Format::bf16, halves.data(), kWide, kWide)},
      {"q8_0", QuantizedLinear(graft::quant::Format::q8_0, blocks.data(), kWide, kWide)}};
  for (const auto& [name, base] : bases) {
    INFO(name);
    each_method<float>(Kind::linear, [&, b = base](const auto& entry) {
      if (!entry.info.starts_empty.empty()) return;
      Bench<float> bench(std::make_unique<LinearStage<float>>(b));
      auto& set = bench.add(entry, "a");
      Bench<float> decoded(
          std::make_unique<LinearStage<float>>(graft::DenseLinear(b.dense_weight())));
      auto& other = decoded.add(entry, "a");
      disturb(set, 11);
      disturb(other, 11);
      const auto y = bench.output();
      CHECK(difference(y, decoded.output()) < 1e-2);
      descend(bench, set);
      CHECK_FALSE(same_bits(bench.output(), y));
      if (!entry.info.mergeable) return;
      if (bench.sites().linear.front()->base().template as<QuantizedLinear>() == nullptr) return;
      CHECK_THROWS_WITH(bench.adapters().merge(), Catch::Contains("dequantize"));
      const auto trained = bench.output();
      bench.adapters().merge({.dequantize = true});
      CHECK(difference(bench.output(), trained) < 1e-2);
      bench.adapters().unmerge();
      CHECK(same_bits(bench.output(), trained));
    });
  }
}

TEST_CASE("Rows of a batch run their own adapters of every method, or none, in training too") {
  for (const auto& [kind, kind_name] : kKinds) {
    INFO(kind_name);
    each_method<double>(kind, [k = kind](const auto& entry) {
      if (!entry.info.starts_empty.empty()) return;
      Bench<double> bench(k);
      auto& adapters = bench.adapters();
      const auto original = bench.frozen();
      std::map<std::string, BasicTensor<double>> alone;
      for (const auto* name : {"a", "b"}) {
        disturb(bench.add(entry, name, name[0] == 'a' ? 5 : 6), name[0] == 'a' ? 11 : 13);
        if (!bench.is_frozen(original)) return;  // the other one's frozen weights are not these
        alone[name] = bench.output();
      }
      const std::vector<std::string> rows{"b", "__base__", "a"};
      if (entry.experts) {
        CHECK_THROWS_WITH(bench.output(rows), Catch::Contains("batch of their own"));
        return;
      }
      {
        const auto off = adapters.disabled();
        alone["__base__"] = bench.output();
      }
      const auto mixed = bench.output(rows);
      const Index each = mixed.size() / kRows;
      for (Index r = 0; r < kRows; ++r) {
        const auto& name = rows[static_cast<std::size_t>(r)];
        const auto& expected = alone[name];
        if (entry.info.rows_apart || name == "__base__")
          CHECK(difference(row_of(mixed, r), row_of(expected, r)) < 1e-9);
      }
      if (!entry.info.rows_apart) return;
      // Gradients: those of each adapter alone on its rows.
      adapters.activate({"a", "b"});
      const auto weights = random_tensor<double>(mixed.shape(), 4, 1);
      const auto gradients = [&](const std::string& name, bool by_row) {
        auto own = weights.clone();
        for (Index r = 0; r < kRows && !by_row; ++r)
          if (rows[static_cast<std::size_t>(r)] != name)
            std::fill_n(own.data() + r * each, each, 0.0);
        for (const auto& p : adapters.parameters()) p.zero_grad();
        if (!by_row) adapters.activate({name});
        BasicTape<double> tape({.training = false});
        const auto y = bench.run(tape, by_row ? rows : std::vector<std::string>{});
        tape.backward(sum(mul(y, tape.constant(own))));
        std::vector<BasicTensor<double>> list;
        for (const auto& p : adapters.at(name).parameters())
          list.push_back(p.grad() ? p.grad().clone() : BasicTensor<double>::zeros(p.shape()));
        adapters.activate({"a", "b"});
        return list;
      };
      for (const auto* name : {"a", "b"}) {
        const auto together = gradients(name, true), apart = gradients(name, false);
        for (std::size_t i = 0; i < apart.size(); ++i)
          CHECK(difference(together[i], apart[i]) < 1e-8);
      }
    });
  }
}

TEST_CASE("An adapter that waits for its invocation looks for it in its own rows") {
  const auto& entry = graft::all_methods<double>().at("LORA");
  Bench<double> bench(Kind::model);
  auto config = entry.defaults;
  config["task_type"] = "CAUSAL_LM";
  for (const auto* name : {"a", "b"}) {
    config["alora_invocation_tokens"] = ConfigValue::List{ConfigValue(name[0] == 'a' ? 7 : 5)};
    disturb(bench.add(entry, config, name), name[0] == 'a' ? 11 : 13);
  }
  std::map<std::string, BasicTensor<double>> alone;
  for (const auto* name : {"a", "b"}) {
    bench.adapters().activate({name});
    alone[name] = bench.output();
  }
  CHECK(difference(row_of(alone["a"], 0), row_of(alone["b"], 0)) > 1e-6);
  const std::vector<std::string> rows{"b", "a", "b"};
  const auto mixed = bench.output(rows);
  for (Index r = 0; r < kRows; ++r)
    CHECK(difference(row_of(mixed, r), row_of(alone[rows[static_cast<std::size_t>(r)]], r)) < 1e-9);
}

TEST_CASE("Every dropout is drawn from the seed and rests outside of training") {
  for (const auto& [kind, kind_name] : kKinds) {
    if (kind == Kind::embedding) continue;  // rows of a table are not dropped
    INFO(kind_name);
    int tried = 0;
    each_method<float>(kind, [&, k = kind](const auto& entry) {
      for (const auto& [field, value] : entry.example) {
        const bool dropout = field.ends_with("dropout") || field.ends_with("dropout_p");
        if (!dropout || !value.is_number() || field == entry.info.unused_dropout) continue;
        INFO(field);
        ++tried;
        Bench<float> bench(k);
        auto config = bench.config(entry);
        config[field] = 0.5;
        auto& set = bench.add(entry, config, "a");
        disturb(set, 11);
        const auto training = [&](std::uint64_t seed) {
          BasicTape<float> tape({.gradients = false, .training = true, .seed = seed});
          return bench.run(tape).value().clone();
        };
        CHECK(same_bits(training(1), training(1)));
        bool differs = false;
        for (std::uint64_t seed = 2; seed < 12 && !differs; ++seed)
          differs = !same_bits(training(1), training(seed));
        CHECK(differs);
        CHECK(same_bits(bench.output(), bench.output()));
      }
    });
    if (kind == Kind::linear) CHECK(tried > 10);
  }
}
