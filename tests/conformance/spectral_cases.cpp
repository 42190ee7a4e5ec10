// Cases of spectral, orthogonal and random-subspace methods that are no plain layer.
#include "graft/adapters/orthogonal/oft.hpp"
#include "graft/adapters/spectral/soda.hpp"
#include "graft/adapters/spectral/svfit.hpp"
#include "handlers.hpp"
#include "layer_run.hpp"

namespace conformance {
namespace {

using Matrix = BasicTensor<double>;

/// Part i along the first axis.
Matrix part(const Matrix& m, Index i) {
  auto result = Matrix::empty({m.dim(1), m.dim(2)});
  std::copy_n(m.data() + i * result.size(), result.size(), result.data());
  return result;
}

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

const Handler handlers[] = {
    {{.kind = "procedure", .peft_type = "SODA"}, run_soda_steps},
    {{.kind = "procedure", .peft_type = "SVFIT"}, run_svfit_rank},
    {{.kind = "procedure", .peft_type = "OFT"}, run_coft_projection},
    {{.kind = "layer", .peft_type = "OFT"}, run_oft_layer},
};

}  // namespace
}  // namespace conformance
