#include "graft/compose/adapter_model.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"
#include "graft/adapters/low_rank/lily.hpp"
#include "io/temporary_folder.hpp"

TEST_CASE("Copies of a tensor that layers share must be equal in a file") {
  graft::BasicLinearSite<double> first{"l.0.q", checks::random_layer<double>(4, 4, 1)},
      second{"l.1.q", checks::random_layer<double>(4, 4, 2)};
  graft::BasicSiteTable<double> table;
  table.linear = {&first, &second};
  graft::MethodRegistry<double> registry;
  registry.add(graft::MethodList<graft::LinearMethod<graft::BasicLily<double>>>{});
  graft::BasicAdapterModel<double> model(table, registry);
  graft::TorchGenerator generator(1);
  const graft::ConfigValue::List targets{"q"};
  model.add("default",
            {{"peft_type", "LILY"}, {"r", 2}, {"init_weights", false}, {"target_modules", targets}},
            generator);
  const graft_test::TemporaryFolder folder;
  model.save("default", folder.path());
  CHECK_NOTHROW(model.load("again", folder.path()));

  const auto path = folder / "adapter_model.safetensors";
  const std::string a = "base_model.model.l.0.q.lily_B.weight",
                    b = "base_model.model.l.1.q.lily_B.weight";
  const auto file = graft::io::SafetensorsFile::open(path);
  auto other = graft::io::to_f32(file.at(b));
  other.back() += 1;
  std::vector<graft::io::TensorToWrite> tensors;
  for (const auto& view : file.tensors())
    tensors.push_back({view.name, view.dtype, view.shape,
                       view.name == b ? std::as_bytes(std::span(other)) : view.data});
  graft::io::write_safetensors(folder / "new", tensors);
  std::filesystem::rename(folder / "new", path);
  CHECK_THROWS_WITH(model.load("torn", folder.path()),
                    Catch::Contains("1 unequal copies of what layers share: " + a + " and " + b));
  graft::LoadReport report;
  model.load("torn", folder.path(), false, &report);
  CHECK(report.unequal.size() == 1);
  CHECK(report.mismatched.empty());

  // The same values in another format are equal.
  const auto torn = graft::io::SafetensorsFile::open(path);
  const auto wide = graft::io::to_f64(torn.at(a));
  tensors.clear();
  for (const auto& view : torn.tensors())
    if (view.name == b)
      tensors.push_back({b, graft::io::DType::f64, view.shape, std::as_bytes(std::span(wide))});
    else
      tensors.push_back({view.name, view.dtype, view.shape, view.data});
  graft::io::write_safetensors(folder / "new", tensors);
  std::filesystem::rename(folder / "new", path);
  CHECK_NOTHROW(model.load("mixed", folder.path()));
}
