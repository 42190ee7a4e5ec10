// Cases of spectral, orthogonal and random-subspace methods that are no plain layer.
#include "graft/adapters/orthogonal/oft.hpp"
#include "graft/adapters/selection/apet.hpp"
#include "graft/adapters/sparse/intrinsic_dimension.hpp"
#include "graft/adapters/spectral/soda.hpp"
#include "graft/adapters/spectral/svfit.hpp"
#include "handlers.hpp"
#include "layer_run.hpp"

namespace conformance {
namespace {

using Matrix = BasicTensor<double>;

/// Q0 and gradients [steps, s, s] -> out.Q after each step.
void run_soda_steps(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  graft::StiefelAdam optimizer(read_config_of<graft::SODAConfig>(c).optimizer());
  auto q = tensor_of<double>(file, "Q0");
  const auto gradients = tensor_of<double>(file, "gradients"),
             expected = tensor_of<double>(file, "out.Q");
  for (Index t = 0; t < gradients.dim(0); ++t) {
    q = optimizer.step(q, part(gradients, t));
    check.compare(concat("Q ", t), values_of(q), values_of(part(expected, t)));
  }
}

/// weight.<name> -> out.rank.<name>.
void run_svfit_rank(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto config = read_config_of<graft::SVFitConfig>(c);
  for (const auto& view : file.tensors()) {
    if (!view.name.starts_with("weight.")) continue;
    const std::string name = "out.rank." + view.name.substr(7);
    const Index rank = graft::svfit_rank(tensor_of<double>(file, view.name), config.energy);
    check.compare(name, std::vector<double>{static_cast<double>(rank)},
                  graft::io::to_f64(file.at(name)));
  }
}

void run_coft_projection(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto config = read_config_of<graft::OFTConfig>(c);
  const auto q = tensor_of<double>(file, "oft_R");
  check.compare("projected", values_of(graft::coft_projection(q, config.eps)),
                graft::io::to_f64(file.at("out.projected")));
  if (const auto* shared = file.find("out.projected_last_block_shared")) {
    auto last = Matrix::empty({1, q.cols()});
    std::copy_n(q.data() + (q.rows() - 1) * q.cols(), q.cols(), last.data());
    check.compare(shared->name, values_of(graft::coft_projection(last, config.eps)),
                  graft::io::to_f64(*shared));
  }
}

/// Layer cases in training mode that say which blocks rest.
void run_oft_layer(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto mask = tensor_of<float>(file, "block_mask");
  if (!mask) return run_layer<float>(check, c);
  const auto set_mask = [&](graft::AdapterModel& model) {
    for (const auto& placed : model.at("default").parts())
      if (auto* method = graft::method_of<graft::OFT>(placed.part.get()))
        method->rotation().set_block_mask(mask);
  };
  run_layer<float>(check, c, {.before = {}, .after = {}, .prepare = set_mask, .training = true});
}

/// sizes, order -> out.chosen.<budget>, out.used.<budget>.
void run_apet_selection(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  const auto numbers = [&](const std::string& name) {
    const auto values = graft::io::to_i64(file.at(name));
    return std::vector<Index>(values.begin(), values.end());
  };
  const auto sizes = numbers("sizes"), order = numbers("order");
  for (const auto& view : file.tensors()) {
    if (!view.name.starts_with("out.chosen.")) continue;
    const std::string budget = view.name.substr(11);
    const auto modules = graft::apet_selection(sizes, order, std::stoll(budget));
    check.compare(view.name, std::vector<double>(modules.chosen.begin(), modules.chosen.end()),
                  graft::io::to_f64(view));
    check.compare("used " + budget, std::vector<double>{static_cast<double>(modules.used)},
                  graft::io::to_f64(file.at("out.used." + budget)));
  }
}

/// Gives the layers of a subspace method the projections of a case: a matrix for all tensors one
/// above the other, or what Fastfood draws for each.
template <class Method>
void set_maps(graft::AdapterModel& model, const SafetensorsFile& file) {
  const auto projection = tensor_of<float>(file, "projection");
  Index row = 0;
  for (const auto& placed : model.at("default").parts()) {
    auto* method = graft::method_of<Method>(placed.part.get());
    if (method == nullptr) continue;
    for (const bool bias : {false, true}) {
      if (bias && !method->trains_bias()) continue;
      const Index size = method->map(bias).outputs(), d = method->map(bias).inputs();
      const std::string name = concat("fastfood.", placed.path, bias ? ".bias" : ".weight");
      if (projection) {
        auto rows = graft::Tensor::empty({size, d});
        std::copy_n(projection.data() + row * d, size * d, rows.data());
        method->set_map(std::make_shared<graft::DenseMap<float>>(std::move(rows)), bias);
        row += size;
      } else if (file.find(name + ".B") != nullptr) {
        graft::FastfoodDraw<float> draw;
        draw.signs = graft::io::to_f32(file.at(name + ".B"));
        draw.normals = graft::io::to_f32(file.at(name + ".G"));
        const auto places = graft::io::to_i64(file.at(name + ".Pi"));
        draw.permutation.assign(places.begin(), places.end());
        method->set_map(std::make_shared<graft::FastfoodMap<float>>(size, d, std::move(draw)),
                        bias);
      }
    }
  }
}

template <class Method>
void run_subspace_layer(Checker& check, const Case& c) {
  LayerSteps<float> steps;
  steps.before = [](graft::AdapterModel& model, const SafetensorsFile& file) {
    set_maps<Method>(model, file);
  };
  run_layer<float>(check, c, steps);
  // Columns of unit norm from the raw draw.
  const auto file = tensors_of(c);
  const auto raw = tensor_of<double>(file, "projection_raw");
  if (!raw || config_of(c).value("projection", "") == "raw") return;
  std::vector<Matrix> parts{raw};
  graft::detail::unit_columns(parts);
  check.compare("projection", values_of(parts[0]), graft::io::to_f64(file.at("projection")));
}
template <class Method>
void run_subspace_model(Checker& check, const Case& c) {
  const auto file = tensors_of(c);
  check.merge(
      run_method_model_case(c, [&](graft::AdapterModel& model) { set_maps<Method>(model, file); }),
      "");
}

using graft::IntrinsicDimension;
using graft::SAID;

const Handler spectral_handlers[] = {
    {{.kind = "procedure", .peft_type = "APET"}, run_apet_selection},
    {{.kind = "layer", .peft_type = "INTRINSIC_DIMENSION"}, run_subspace_layer<IntrinsicDimension>},
    {{.kind = "model", .peft_type = "INTRINSIC_DIMENSION"}, run_subspace_model<IntrinsicDimension>},
    {{.kind = "layer", .peft_type = "SAID"}, run_subspace_layer<SAID>},
    {{.kind = "model", .peft_type = "SAID"}, run_subspace_model<SAID>},
    {{.kind = "procedure", .peft_type = "SODA"}, run_soda_steps},
    {{.kind = "procedure", .peft_type = "SVFIT"}, run_svfit_rank},
    {{.kind = "procedure", .peft_type = "OFT"}, run_coft_projection},
    {{.kind = "layer", .peft_type = "OFT"}, run_oft_layer},
};

}  // namespace
}  // namespace conformance
