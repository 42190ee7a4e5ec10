#include "graft/compose/combine.hpp"

#include <catch2/catch.hpp>
#include <string>
#include <utility>
#include <vector>

#include "adapters/method_checks.hpp"
#include "graft/adapters/elementwise/ia3.hpp"
#include "graft/adapters/kronecker/loha.hpp"
#include "graft/adapters/low_rank/lora_method.hpp"
#include "graft/compose/convert.hpp"

using graft::Index;
using graft::Tensor;

namespace {

/// One linear layer, one norm behind it, and adapters with values that are no identity.
struct CombineBench {
  graft::LinearSite layer{"block.proj", graft::DenseLinear(checks::random_tensor<float>({9, 14}, 1),
                                                           checks::random_tensor<float>({9}, 2))};
  graft::SiteTable table;
  graft::MethodRegistry<float> registry =
      graft::MethodRegistry<float>()
          .add(graft::MethodList<graft::LoRAMethod<float>,
                                 graft::LinearMethod<graft::BasicLoHa<float>>>{})
          .add(graft::MethodList<graft::LinearMethod<graft::BasicIA3<float>>>{});
  graft::AdapterModel model{table, registry};
  Tensor x = checks::random_tensor<float>({6, 14}, 3);

  CombineBench() {
    table.linear = {&layer};
    table.info.architecture = "toy";
  }
  void add(const std::string& name, graft::ConfigValue::Map config, unsigned seed) {
    config["target_modules"] = graft::ConfigValue::List{graft::ConfigValue("proj")};
    graft::TorchGenerator generator(seed);
    auto& set = model.add(name, config, generator);
    for (auto p : set.parameters()) {
      auto value = checks::random_tensor<float>(p.shape(), seed++, 0.3F);
      for (Index i = 0; i < value.size(); ++i) value[i] += p.value()[i];
      p.assign(value);
    }
  }
  void add_three() {
    add("rs", {{"peft_type", "LORA"}, {"r", 3}, {"lora_alpha", 5}, {"use_rslora", true}}, 10);
    add("biased", {{"peft_type", "LORA"}, {"r", 2}, {"lora_alpha", 4}, {"lora_bias", true}}, 20);
    add("dora", {{"peft_type", "LORA"}, {"r", 2}, {"use_dora", true}}, 30);
    add("loha", {{"peft_type", "LOHA"}, {"r", 2}, {"alpha", 3}}, 40);
  }
  Tensor run(std::vector<std::string> names) {
    model.activate(std::move(names));
    graft::Tape tape({.gradients = false, .training = false});
    return layer(tape.constant(x)).value().clone();
  }
  /// y₀ + Σ w (y_i − y₀).
  Tensor expected(const std::vector<std::string>& names, const std::vector<float>& weights) {
    const auto base = run({});
    auto sum = base.clone();
    for (std::size_t k = 0; k < names.size(); ++k) {
      const auto y = run({names[k]});
      for (Index i = 0; i < y.size(); ++i) sum[i] += weights[k] * (y[i] - base[i]);
    }
    return sum;
  }
};

double distance(const Tensor& a, const Tensor& b) {
  REQUIRE(a.size() == b.size());
  double error = 0, size = 0;
  for (Index i = 0; i < a.size(); ++i) {
    error = std::max(error, static_cast<double>(std::abs(a[i] - b[i])));
    size = std::max(size, static_cast<double>(std::abs(b[i])));
  }
  return error / size;
}

}  // namespace

TEST_CASE("The exact combination is the weighted sum of what the adapters do") {
  CombineBench bench;
  bench.add_three();
  SECTION("of LoRAs of other ranks, with rsLoRA and a bias") {
    const auto wanted = bench.expected({"rs", "biased"}, {0.7F, -1.3F});
    auto& set = graft::add_weighted_adapter(bench.model, {"rs", "biased"}, {0.7, -1.3}, "w");
    CHECK(set.given_config().at("r") == graft::ConfigValue(5));
    CHECK(distance(bench.run({"w"}), wanted) < 1e-5);
  }
  SECTION("of methods that are no plain LoRA") {
    const auto wanted = bench.expected({"rs", "dora", "loha"}, {0.5F, 1.5F, -0.25F});
    graft::add_weighted_adapter(bench.model, {"rs", "dora", "loha"}, {0.5, 1.5, -0.25}, "w");
    CHECK(distance(bench.run({"w"}), wanted) < 1e-5);
  }
  SECTION("cut off at a rank it is close, and the active adapters stay") {
    bench.model.activate({"loha"});
    auto& set =
        graft::add_weighted_adapter(bench.model, {"rs", "loha"}, {1, 1}, "w", {.svd_rank = 2});
    CHECK(set.given_config().at("r") == graft::ConfigValue(2));
    CHECK(bench.model.active() == std::vector<std::string>{"loha"});
  }
}

TEST_CASE("PEFT's combinations refuse what they would get wrong") {
  CombineBench bench;
  bench.add_three();
  const auto combine = [&](std::vector<std::string> names, const std::string& type,
                           double density = -1) {
    graft::CombineOptions options;
    options.combination_type = type;
    options.density = density;
    return &graft::add_weighted_adapter(bench.model, names, std::vector<double>(names.size(), 0.5),
                                        "w", options);
  };
  CHECK_THROWS_AS(combine({"rs", "dora"}, "cat"), graft::ValueError);
  CHECK_THROWS_AS(combine({"rs", "loha"}, "svd"), graft::ValueError);
  bench.add("other", {{"peft_type", "LORA"}, {"r", 2}}, 50);
  CHECK_THROWS_AS(combine({"rs", "other"}, "linear"), graft::ValueError);
  CHECK_THROWS_AS(combine({"rs", "other"}, "ties_svd"), graft::ValueError);
  CHECK_THROWS_AS(combine({"rs", "other"}, "average"), graft::ValueError);
  CHECK_THROWS_AS(combine({"rs", "other"}, "dare_linear_svd", 0), graft::ValueError);
  CHECK_THROWS_AS(graft::add_weighted_adapter(bench.model, {"rs"}, {1, 2}, "w"), graft::ValueError);
  CHECK_FALSE(bench.model.contains("w"));
  // rsLoRA counts in the scaling: cat and a full svd are exact.
  const auto wanted = bench.expected({"rs", "other"}, {0.5F, 0.5F});
  combine({"rs", "other"}, "cat");
  CHECK(distance(bench.run({"w"}), wanted) < 1e-5);
}

TEST_CASE("What is trained whole beside an adapter of any method is combined with it") {
  graft::LinearSite head{"head", graft::DenseLinear(checks::random_tensor<float>({3, 9}, 4),
                                                    checks::random_tensor<float>({3}, 5))};
  CombineBench bench;
  bench.table.linear.push_back(&head);
  const auto saved = graft::ConfigValue::List{graft::ConfigValue("head")};
  const std::vector<graft::ConfigValue::Map> kinds{
      {{"peft_type", "IA3"}, {"feedforward_modules", graft::ConfigValue::List{}}},
      {{"peft_type", "LOHA"}, {"r", 2}},
      {{"peft_type", "LORA"}, {"r", 2}, {"use_dora", true}, {"bias", "lora_only"}},
      {{"peft_type", "LORA"}, {"r", 2}}};
  unsigned seed = 100;
  for (auto config : kinds) {
    config["modules_to_save"] = saved;
    config["task_type"] = "SEQ_CLS";
    bench.add(std::string("a").append(std::to_string(seed)), config, seed);
    seed += 10;
  }
  const auto run = [&](const std::vector<std::string>& names) {
    const auto hidden = bench.run(names);
    graft::Tape tape({.gradients = false, .training = false});
    return head(tape.constant(hidden)).value().clone();
  };
  const std::vector<std::string> names = bench.model.names();
  for (const auto& name : names) {
    const auto& set = graft::convert_to_lora(bench.model, name, "lora");
    CHECK(set.given_config().at("task_type") == graft::ConfigValue("SEQ_CLS"));
    CHECK(set.given_config().at("modules_to_save") == graft::ConfigValue(saved));
    CHECK(distance(run({"lora"}), run({name})) < 1e-4);
    bench.model.remove("lora");
  }
  // A rank is one of the factors, not of the head.
  CHECK(graft::convert_to_lora(bench.model, names[1], "lora", {5, 0}).given_config().at("r") ==
        graft::ConfigValue(5));
  bench.model.remove("lora");
  // Heads on the same rows.
  const auto h = checks::random_tensor<float>({6, 9}, 80);
  const auto head_of = [&](const std::vector<std::string>& active) {
    bench.model.activate(active);
    graft::Tape tape({.gradients = false, .training = false});
    return head(tape.constant(h)).value().clone();
  };
  graft::add_weighted_adapter(bench.model, names, {0.5, 0.25, -0.5, 2}, "w");
  auto wanted = head_of({});
  const auto frozen = wanted.clone();
  const float weights[] = {0.5F, 0.25F, -0.5F, 2.0F};
  for (std::size_t k = 0; k < names.size(); ++k) {
    const auto y = head_of({names[k]});
    for (Index i = 0; i < y.size(); ++i) wanted[i] += weights[k] * (y[i] - frozen[i]);
  }
  CHECK(distance(head_of({"w"}), wanted) < 1e-5);
  graft::TorchGenerator generator(0);
  auto& elsewhere =
      bench.model.add("elsewhere",
                      {{"peft_type", "LOHA"},
                       {"target_modules", graft::ConfigValue::List{graft::ConfigValue("head")}}},
                      generator);
  for (const auto& p : elsewhere.parameters()) p.assign(checks::random_tensor<float>(p.shape(), 7));
  CHECK_THROWS_WITH(
      graft::add_weighted_adapter(bench.model, {names[0], "elsewhere"}, {1, 1}, "x"),
      Catch::Contains("'elsewhere' of LOHA changes head, which another adapter trains whole"));
}

TEST_CASE("Breadcrumbs and ComPEFT of LoRAs are those of their products") {
  graft::LinearSite other{"other.proj",
                          graft::DenseLinear(checks::random_tensor<float>({7, 14}, 4))};
  CombineBench bench;
  bench.table.linear.push_back(&other);
  bench.add("a", {{"peft_type", "LORA"}, {"r", 3}, {"lora_alpha", 6}}, 10);
  bench.add("b", {{"peft_type", "LORA"}, {"r", 3}, {"lora_alpha", 3}}, 20);
  const auto products = [&](const std::string& name) {
    std::vector<Tensor> list;
    for (const auto& [path, site] : graft::detail::lora_factors(bench.model.at(name)))
      list.push_back(graft::product_of(site.factors, site.scaling));
    return list;
  };
  const auto combine = [&](const std::vector<std::string>& names, graft::CombineOptions options) {
    if (bench.model.contains("w")) bench.model.remove("w");
    graft::add_weighted_adapter(bench.model, names, std::vector<double>(names.size(), 0.3), "w",
                                options);
    return products("w");
  };
  const auto a = products("a"), b = products("b");
  const auto crumbs =
      combine({"a", "b"}, {.combination_type = "breadcrumbs_svd", .remove = 0.1, .svd_rank = 9});
  for (std::size_t k = 0; k < a.size(); ++k)
    CHECK(distance(crumbs[k], graft::breadcrumbs<float>({a[k], b[k]}, {0.1, 0.1})) < 1e-5);
  const auto whole = combine(
      {"a", "b"},
      {.combination_type = "breadcrumbs_svd", .density = 0.5, .by_row = false, .svd_rank = 9});
  for (std::size_t k = 0; k < a.size(); ++k)
    CHECK(distance(whole[k], graft::breadcrumbs<float>({a[k], b[k]}, {0.5, 0.01, false})) < 1e-5);
  // All layers of an adapter together, also of one adapter alone.
  const auto small = graft::compressed(a), too = graft::compressed(b);
  const auto one = combine({"a"}, {.combination_type = "compeft_svd", .svd_rank = 9});
  const auto both = combine({"a", "b"}, {.combination_type = "compeft_svd", .svd_rank = 9});
  for (std::size_t k = 0; k < a.size(); ++k) {
    CHECK(distance(one[k], graft::weighted_sum<float>({small[k]}, {0.3})) < 1e-5);
    CHECK(distance(both[k], graft::weighted_sum<float>({small[k], too[k]}, {0.3, 0.3})) < 1e-5);
  }
  // On the factors: each row, and all A or all B of an adapter.
  const auto factors = [&](const std::string& name, bool down) {
    std::vector<Tensor> list;
    for (const auto& [path, site] : graft::detail::lora_factors(bench.model.at(name)))
      list.push_back(down ? site.factors.a : site.factors.b);
    return list;
  };
  for (const bool down : {true, false}) {
    const auto mine = factors("a", down);
    const float weight = std::sqrt(0.3F * 2);
    combine({"a"}, {.combination_type = "breadcrumbs", .density = 0.4});
    const auto kept = factors("w", down);
    combine({"a"}, {.combination_type = "compeft", .density = 0.4});
    const auto signs = factors("w", down), expected = graft::compressed(mine, 0.4);
    for (std::size_t k = 0; k < mine.size(); ++k) {
      const auto mask = graft::breadcrumbs_mask(mine[k], {0.4, 0.01});
      for (Index i = 0; i < mine[k].size(); ++i) {
        CHECK(kept[k][i] ==
              Approx(mask[static_cast<std::size_t>(i)] != 0 ? weight * mine[k][i] : 0));
        CHECK(signs[k][i] == Approx(weight * expected[k][i]));
      }
    }
  }
  CHECK_THROWS_WITH(combine({"a", "b"}, {.combination_type = "breadcrumbs"}),
                    Catch::Contains("keeps none of the 3 entries in a row of B"));
  CHECK_THROWS_WITH(combine({"a"}, {.combination_type = "breadcrumbs_svd", .remove = 1}),
                    Catch::Contains("expected at least 0 and less than 1"));
}

TEST_CASE("A negative weight takes away, also where factors are combined") {
  CombineBench bench;
  bench.add("a", {{"peft_type", "LORA"}, {"r", 2}, {"lora_alpha", 3}}, 10);
  const auto wanted = bench.expected({"a"}, {-0.5F});
  for (const char* type : {"exact", "cat", "linear", "svd"}) {
    graft::CombineOptions options;
    options.combination_type = type;
    graft::add_weighted_adapter(bench.model, {"a"}, {-0.5}, "w", options);
    INFO(type);
    CHECK(distance(bench.run({"w"}), wanted) < 1e-5);
    bench.model.remove("w");
  }
}

TEST_CASE("Task arithmetic merges any methods, negation takes away, unmerging restores the bits") {
  CombineBench bench;
  bench.add_three();
  bench.add("ia3", {{"peft_type", "IA3"}, {"feedforward_modules", graft::ConfigValue::List{}}}, 60);
  const auto base = bench.run({});
  const auto wanted = bench.expected({"dora", "ia3", "biased"}, {-1, 0.5F, 2});
  bench.model.merge_weighted({{"dora", -1}, {"ia3", 0.5}, {"biased", 2}});
  CHECK_THROWS_AS(bench.model.merge(), graft::ValueError);
  graft::Tape tape({.gradients = false, .training = false});
  CHECK(distance(bench.layer(tape.constant(bench.x)).value(), wanted) < 1e-5);
  bench.model.unmerge();
  const auto after = bench.run({});
  CHECK(std::equal(base.begin(), base.end(), after.begin()));
}

TEST_CASE("A bias with two names in files is combined once") {
  CombineBench bench;
  bench.layer.second_bias = "bias";
  const graft::ConfigValue::Map config{{"peft_type", "LORA"}, {"r", 2}, {"bias", "all"}};
  bench.add("a", config, 10);
  const auto change = [&](const std::string& name) {
    return bench.layer.biases.of(name).value()[0] - bench.layer.base().bias()[0];
  };
  graft::add_weighted_adapter(bench.model, {"a"}, {0.5}, "half", {});
  CHECK(change("half") == Approx(0.5F * change("a")));
}

namespace {

/// Two layers, and LoRAs of one of them each.
struct BiasBench {
  graft::LinearSite q{"block.q", graft::DenseLinear(checks::random_tensor<float>({4, 5}, 1),
                                                    checks::random_tensor<float>({4}, 2))},
      v{"block.v", graft::DenseLinear(checks::random_tensor<float>({4, 5}, 3),
                                      checks::random_tensor<float>({4}, 4))};
  graft::SiteTable table;
  graft::MethodRegistry<float> registry =
      graft::MethodRegistry<float>().add(graft::MethodList<graft::LoRAMethod<float>>{});
  graft::AdapterModel model{table, registry};
  Tensor x = checks::random_tensor<float>({3, 5}, 5);

  BiasBench() {
    table.linear = {&q, &v};
    table.info.architecture = "toy";
  }
  void add(const std::string& target, const std::string& bias, unsigned seed, bool dora = false) {
    graft::TorchGenerator generator(seed);
    const graft::ConfigValue::List targets{graft::ConfigValue(target)};
    auto& set = model.add(target,
                          {{"peft_type", "LORA"},
                           {"r", 2},
                           {"bias", bias},
                           {"use_dora", dora},
                           {"target_modules", targets}},
                          generator);
    for (const auto& p : set.parameters())
      p.assign(checks::random_tensor<float>(p.shape(), seed++, 0.3F));
  }
  Tensor run(const graft::LinearSite& layer, std::vector<std::string> names) {
    model.activate(std::move(names));
    graft::Tape tape({.gradients = false, .training = false});
    return layer(tape.constant(x)).value().clone();
  }
};

}  // namespace

TEST_CASE("Biases that adapters train in different modes are summed at all layers that have them") {
  const std::vector<std::pair<std::string, std::string>> modes{
      {"all", "none"}, {"all", "lora_only"}, {"lora_only", "none"}, {"lora_only", "all"}};
  for (const auto& [of_q, of_v] : modes)
    for (const bool turned : {false, true}) {
      CAPTURE(of_q, of_v, turned);
      BiasBench bench;
      bench.add("q", of_q, 10);
      bench.add("v", of_v, 20);
      std::vector<std::string> names{"q", "v"};
      if (turned) std::swap(names[0], names[1]);
      graft::add_weighted_adapter(bench.model, names, {0.5, -2}, "w");
      for (const auto* layer : {&bench.q, &bench.v}) {
        const auto base = bench.run(*layer, {});
        const auto first = bench.run(*layer, {names[0]}), second = bench.run(*layer, {names[1]});
        auto wanted = base.clone();
        for (Index i = 0; i < base.size(); ++i)
          wanted[i] += 0.5F * (first[i] - base[i]) - 2 * (second[i] - base[i]);
        CHECK(distance(bench.run(*layer, {"w"}), wanted) < 1e-5);
      }
    }
}

TEST_CASE("A bias that is trained alone beside DoRA needs no factors of more than one rank") {
  BiasBench bench;
  bench.add("q", "all", 10, true);
  auto& set = graft::add_weighted_adapter(bench.model, {"q"}, {0.5}, "w");
  for (const auto* layer : {&bench.q, &bench.v}) {
    const auto base = bench.run(*layer, {}), whole = bench.run(*layer, {"q"});
    REQUIRE(distance(whole, base) > 1e-3);
    auto wanted = base.clone();
    for (Index i = 0; i < base.size(); ++i) wanted[i] += 0.5F * (whole[i] - base[i]);
    CHECK(distance(bench.run(*layer, {"w"}), wanted) < 1e-5);
  }
  // q: 4 (5 + 4) + 4; v: 5 + 4 + 4, zeros but for the bias.
  CHECK(set.trainable_elements() == 40 + 13);
}

TEST_CASE("An adapter with trained biases goes with other methods, in any order") {
  CombineBench bench;
  bench.add("trained", {{"peft_type", "LORA"}, {"r", 2}, {"bias", "all"}}, 10);
  bench.add("loha", {{"peft_type", "LOHA"}, {"r", 2}}, 20);
  const auto wanted = bench.expected({"trained", "loha"}, {0.5F, 2});
  graft::add_weighted_adapter(bench.model, {"trained", "loha"}, {0.5, 2}, "w");
  graft::add_weighted_adapter(bench.model, {"loha", "trained"}, {2, 0.5}, "turned");
  CHECK(distance(bench.run({"w"}), wanted) < 1e-5);
  CHECK(distance(bench.run({"turned"}), wanted) < 1e-5);

  bench.add("dora", {{"peft_type", "LORA"}, {"r", 2}, {"use_dora", true}, {"bias", "all"}}, 30);
  const auto both = bench.expected({"loha", "dora"}, {1, 1});
  graft::add_weighted_adapter(bench.model, {"loha", "dora"}, {1, 1}, "both");
  CHECK(distance(bench.run({"both"}), both) < 1e-5);
  CHECK_THROWS_WITH(
      graft::add_weighted_adapter(bench.model, {"trained"}, {1}, "x", {.combination_type = "cat"}),
      Catch::Contains("'trained'") && Catch::Contains("use exact"));
}

TEST_CASE("Any method that merges becomes a LoRA of a rank or of a share of its energy") {
  CombineBench bench;
  bench.add_three();
  const auto wanted = bench.run({"loha"});
  graft::convert_to_lora(bench.model, "loha", "whole");
  CHECK(distance(bench.run({"whole"}), wanted) < 1e-4);
  const auto& small = graft::convert_to_lora(bench.model, "loha", "small", {0, 0.5});
  CHECK(small.trainable_elements() < bench.model.at("whole").trainable_elements());
  CHECK_THROWS_AS(graft::convert_to_lora(bench.model, "loha", "x", {10, 0}), graft::ValueError);
  CHECK_THROWS_AS(graft::convert_to_lora(bench.model, "loha", "x", {0, 1.5}), graft::ValueError);
}

TEST_CASE("Rows of a batch run with their own adapters, forward and backward") {
  CombineBench bench;
  bench.add_three();
  const auto dy = checks::random_tensor<float>({6, 9}, 70);
  const std::vector<std::string> names{"rs", "__base__", "loha", "rs", "dora", "__base__"};
  auto context = std::make_shared<graft::ForwardContext>();
  context->batch = 6;
  context->row_adapters = names;
  graft::Tape tape;
  tape.set_context(context);
  const auto x = tape.leaf(bench.x);
  const auto y = bench.layer(x);
  for (const char* name : {"rs", "loha", "dora"})
    for (const auto& p : bench.model.at(name).parameters()) p.zero_grad();
  tape.backward(y, dy);
  std::vector<Tensor> gradients;
  for (const auto& p : bench.model.at("rs").parameters()) gradients.push_back(p.grad().clone());
  const auto dx = x.grad().clone();
  for (Index row = 0; row < 6; ++row) {
    const auto& name = names[static_cast<std::size_t>(row)];
    const auto alone =
        bench.run(name == "__base__" ? std::vector<std::string>{} : std::vector<std::string>{name});
    for (Index j = 0; j < 9; ++j) CHECK(y.value()(row, j) == Approx(alone(row, j)).margin(1e-5));
  }
  // The same gradients as from a batch of the two rows alone.
  bench.model.activate({"rs"});
  for (const auto& p : bench.model.at("rs").parameters()) p.zero_grad();
  graft::Tape two;
  auto rows = Tensor::empty({2, 14}), above = Tensor::empty({2, 9});
  for (Index k = 0; k < 2; ++k) {
    for (Index j = 0; j < 14; ++j) rows(k, j) = bench.x(3 * k, j);
    for (Index j = 0; j < 9; ++j) above(k, j) = dy(3 * k, j);
  }
  const auto leaf = two.leaf(rows);
  two.backward(bench.layer(leaf), above);
  std::size_t k = 0;
  for (const auto& p : bench.model.at("rs").parameters())
    CHECK(distance(gradients[k++], p.grad()) < 1e-5);
  for (Index j = 0; j < 14; ++j) CHECK(dx(3, j) == Approx(leaf.grad()(1, j)).margin(1e-5));
}

TEST_CASE("Embeddings and norms run by row too") {
  graft::SiteTable table;
  graft::EmbeddingSite words("words",
                             graft::EmbeddingTable(checks::random_tensor<float>({8, 5}, 1)));
  table.embedding = {&words};
  table.info.architecture = "toy";
  auto registry = graft::MethodRegistry<float>().add(graft::MethodList<graft::LoRAMethod<float>>{});
  graft::AdapterModel model(table, registry);
  graft::TorchGenerator generator(1);
  auto& set = model.add("a",
                        {{"peft_type", "LORA"},
                         {"r", 2},
                         {"target_modules", graft::ConfigValue::List{graft::ConfigValue("words")}}},
                        generator);
  for (auto p : set.parameters()) p.assign(checks::random_tensor<float>(p.shape(), 9));
  const std::vector<std::int32_t> ids{1, 2, 3, 1, 2, 3};
  const auto run = [&](std::vector<std::string> rows) {
    graft::Tape tape({.gradients = false, .training = false});
    auto context = std::make_shared<graft::ForwardContext>();
    context->batch = 2;
    context->seq_len = 3;
    context->row_adapters = std::move(rows);
    tape.set_context(context);
    return words(tape, ids).value().clone();
  };
  const auto all = run({});
  const auto mixed = run({"__base__", "a"});
  REQUIRE(mixed.shape() == graft::Shape{6, 5});
  for (Index j = 0; j < 5; ++j) {
    CHECK(mixed(0, j) == words.table().dense()(1, j));
    CHECK(mixed(4, j) == Approx(all(4, j)));
  }
  CHECK_THROWS_AS(run({"a"}), graft::ShapeError);
}
