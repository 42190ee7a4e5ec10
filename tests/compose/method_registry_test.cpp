#include "graft/compose/method_registry.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"
#include "graft/adapters/low_rank/lora_method.hpp"
#include "graft/compose/adapter_model.hpp"
#include "graft/compose/full_method.hpp"

namespace {

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
    registry.add(graft::MethodList<graft::LoRAMethod<double>>{});
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
