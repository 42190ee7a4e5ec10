// Family mixtures: Poly. Two tasks in one batch, each with a mixture of its own of shared skills.
#include "graft/adapters/mixtures/poly.hpp"
#include "tiny_layer.hpp"

int main() {
  const auto frozen = tiny::frozen_layer();
  const graft::PolyConfig config{.rank = 4, .tasks = 2, .skills = 4};
  graft::StandaloneInit<float> init(7);
  const graft::Adapted layer(frozen, graft::Poly(config, graft::site_info(frozen), init.context()));
  // Rows of the first task double the outputs, those of the second take half.
  auto context = std::make_shared<graft::ForwardContext>();
  context->batch = tiny::kRows;
  auto factor = graft::Tensor::empty({tiny::kRows, 1});
  for (graft::Index i = 0; i < tiny::kRows; ++i) {
    context->task_ids.push_back(i % 2);
    factor[i] = i % 2 == 0 ? 1.3F : 0.7F;
  }
  const bool learned = tiny::learns(
      "Poly", layer.parameters(),
      [&](const graft::Var& x) {
        x.tape().set_context(context);
        return layer(x);
      },
      [&](const graft::Var& x) { return mul(graft::linear(frozen, x), x.tape().constant(factor)); },
      0.9, 1e-2, 400);
  return learned ? 0 : 1;
}
