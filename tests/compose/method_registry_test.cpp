#include "graft/compose/method_registry.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"
#include "graft/adapters/low_rank/dylora.hpp"
#include "graft/adapters/low_rank/lora_method.hpp"
#include "graft/compose/adapter_model.hpp"
#include "graft/compose/full_method.hpp"

namespace {

/// DyLoRA that tells at which paths its procedure works.
struct WatchedDyLoRA : graft::DyLoRAMethod<double> {
  static inline std::vector<std::string> paths;
  static std::unique_ptr<graft::Procedure<double>> procedure(
      const Config& config, const std::vector<graft::PlacedPart<double>>& parts) {
    paths.clear();
    for (const auto& placed : parts) paths.push_back(placed.path);
    return graft::DyLoRAMethod<double>::procedure(config, parts);
  }
};

/// A convolution, a layer and a head.
struct Layers {
  graft::BasicLinearSite<double> patches{"patches", checks::random_layer<double>(4, 6, 1)},
      layer{"layer", checks::random_layer<double>(4, 4, 2)},
      head{"head", checks::random_layer<double>(3, 4, 3)};
  graft::BasicSiteTable<double> table;
  graft::MethodRegistry<double> registry;
  graft::BasicAdapterModel<double> model{table, registry};

  Layers() {
    patches.conv.kernel = {1, 2};
    patches.conv.in_channels = 3;
    table.linear = {&patches, &layer, &head};
    table.info.output_layers = {"head"};
    registry.add(graft::MethodList<graft::LoRAMethod<double>, WatchedDyLoRA>{});
    registry.add(graft::FullMethods<double>{});
  }
  std::vector<std::string> adapted(graft::ConfigValue targets, const char* method = "LORA") {
    graft::TorchGenerator generator(1);
    std::vector<std::string> paths;
    for (const auto& placed :
         model.add("default", {{"peft_type", method}, {"target_modules", targets}}, generator)
             .parts())
      paths.push_back(placed.path);
    return paths;
  }
};

}  // namespace

TEST_CASE("all-linear means neither heads nor convolutions, as in PEFT") {
  CHECK(Layers().adapted("all-linear") == std::vector<std::string>{"layer"});
  CHECK(Layers().adapted("all-linear", "FULL") == std::vector<std::string>{"layer"});
}

TEST_CASE("a name means a convolution as well") {
  const graft::ConfigValue::List names{"patches", "head"};
  CHECK(Layers().adapted(names) == std::vector<std::string>{"patches", "head"});
}

TEST_CASE("A procedure has nothing to do with modules that are trained whole") {
  Layers layers;
  graft::TorchGenerator generator(1);
  const auto& set = layers.model.add("default",
                                     {{"peft_type", "DYLORA"},
                                      {"target_modules", graft::ConfigValue::List{"layer", "head"}},
                                      {"modules_to_save", graft::ConfigValue::List{"head"}}},
                                     generator);
  CHECK(set.parts().size() == 2);
  CHECK(WatchedDyLoRA::paths == std::vector<std::string>{"layer"});
  set.procedure()->before_step({});
}
