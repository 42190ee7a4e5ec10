#include "graft/adapters/low_rank/triadaptlora.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::Index;
using TriAdaptLoRA = graft::BasicTriAdaptLoRA<double>;

namespace {

graft::TriAdaptLoRAConfig blocks_of(std::initializer_list<Index> sizes) {
  graft::TriAdaptLoRAConfig config;
  graft::ConfigValue::List list;
  for (const Index q : sizes) list.emplace_back(q);
  config.select.rank_pattern["proj"] = list;
  return config;
}

}  // namespace

TEST_CASE("TriAdaptLoRA begins as the identity, has right gradients, counts and merges") {
  for (const auto& config : {blocks_of({3}), blocks_of({1, 4}), blocks_of({2, 1, 3})}) {
    CHECK(checks::change_at_init<TriAdaptLoRA>(config) < 1e-12);
    CHECK(checks::gradient_error<TriAdaptLoRA>(config) < 1e-7);
    CHECK(checks::merge_error<graft::TriAdaptLoRA>(config) < 1e-5);
  }
  CHECK(checks::trained<graft::TriAdaptLoRA>(blocks_of({1, 4}), 10, 12) ==
        5 * 22 + 2 * (1 * 1 + 4 * 5));
  CHECK_THROWS_AS(checks::trained<graft::TriAdaptLoRA>(blocks_of({2, 0})), graft::ValueError);
}

TEST_CASE("the core is a lower and an upper triangle of blocks, and growth leaves it as it was") {
  const auto layer = checks::random_layer<double>(5, 6, 1);
  auto method = checks::make<TriAdaptLoRA>(blocks_of({1, 2}), checks::site_of(layer));
  checks::randomize(method);
  graft::BasicTape<double> tape;
  const auto before = method.core(tape).value();
  const auto row = method.named(1)[2].second.value(), col = method.named(1)[3].second.value();
  CHECK(before(1, 0) == row(0, 0));
  CHECK(before(0, 2) == col(0, 1));
  CHECK(before(2, 1) == Approx(row(1, 1) + col(2, 0)));
  const double norm = method.core_norm("rank");
  CHECK(method.core_norm("blocks") == Approx(norm * 3 / 2));
  CHECK(method.core_norm("sqrt_params") == Approx(norm * 3 / std::sqrt(14.0)));
  method.grow(checks::random_tensor<double>({2, 6}, 7), checks::random_tensor<double>({5, 2}, 8));
  const auto after = method.core(tape).value();
  for (Index i = 0; i < 5; ++i)
    for (Index j = 0; j < 5; ++j) CHECK(after(i, j) == (i < 3 && j < 3 ? before(i, j) : 0));
}

TEST_CASE("a run lets modules grow up to the reference rank and trains what grew") {
  graft::TriAdaptLoRAConfig config;
  config.reference_rank = 4;
  const auto layer = checks::random_layer<double>(5, 6, 1);
  const auto site = checks::site_of(layer);
  graft::TorchGenerator generator(3);
  graft::SharedParameters<double> shared;
  graft::InitContext<double> context{generator, shared};
  std::vector<graft::PlacedPart<double>> parts;
  for (const char* path : {"a", "b"})
    parts.push_back({path, graft::TriAdaptLoRAMethod<double>::linear(config, site, context)});
  const auto procedure = graft::TriAdaptLoRAMethod<double>::procedure(config, parts);
  const auto x = checks::random_tensor<double>({4, 6}, 2);
  graft::BasicTensor<double> grown;
  for (Index t = 1; t <= 6; ++t) {
    const graft::StepInfo info{t, 6, 0.1};
    for (auto& placed : parts) {
      auto* method = graft::method_of<TriAdaptLoRA>(placed.part.get());
      graft::BasicTape<double> tape;
      tape.backward(sum(square(method->apply(layer, tape.constant(x)))));
      // The optimiser of the run knows the first block.
      for (auto& [name, p] : method->named(0)) {
        for (Index i = 0; i < p.size(); ++i) p.value()[i] -= 0.1 * p.grad()[i];
        p.zero_grad();
      }
    }
    procedure->after_step(info);
    auto* first = graft::method_of<TriAdaptLoRA>(parts[0].part.get());
    if (!grown && first->block_sizes().size() > 1)
      grown = first->named(1)[0].second.value().clone();
  }
  auto* first = graft::method_of<TriAdaptLoRA>(parts[0].part.get());
  const Index total = first->rank() + graft::method_of<TriAdaptLoRA>(parts[1].part.get())->rank();
  CHECK(total >= 8);
  CHECK(total < 12);
  REQUIRE(grown);
  CHECK(checks::relative_error(first->named(1)[2].second.value(),
                               graft::BasicTensor<double>::zeros({2, 3})) > 1e-6);
  graft::ConfigValue::Map map;
  procedure->update_config(map);
  CHECK(map.contains("rank_pattern"));

  // What it keeps is enough to go on.
  const auto state = procedure->state();
  const auto again = graft::TriAdaptLoRAMethod<double>::procedure(config, parts);
  again->set_state(state);
  CHECK(again->state() == state);
}

TEST_CASE("blocks that a file has in the same size stay the parameters that they were") {
  const auto layer = checks::random_layer<double>(5, 6, 1);
  auto method = checks::make<TriAdaptLoRA>(blocks_of({1, 2}), checks::site_of(layer));
  const auto first = method.named(0)[0].second;
  const graft::Shape shapes[] = {{1, 6}, {3, 6}, {2, 6}};
  method.before_load([&](std::string_view name) -> const graft::Shape* {
    for (std::size_t k = 0; k < 3; ++k)
      if (name == graft::concat("lora_A.", k)) return &shapes[k];
    return nullptr;
  });
  CHECK(method.block_sizes() == std::vector<Index>{1, 3, 2});
  CHECK(method.rank() == 6);
  CHECK(method.named(0)[0].second == first);
  CHECK(method.named(2)[2].second.shape() == graft::Shape{2, 6});
}
