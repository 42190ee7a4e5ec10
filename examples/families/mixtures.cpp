// Family mixtures: Poly. Two tasks in one batch, each with a mixture of its own of shared skills.
#include "graft/adapters/mixtures/poly.hpp"
#include "tiny_layer.hpp"

int main() {
  const auto frozen = tiny::frozen_layer();
  const graft::PolyConfig config{.rank = 4, .tasks = 2, .skills = 4};
  graft::StandaloneInit<float> init(7);
  const graft::Adapted layer(frozen, graft::Poly(config, graft::site_info(frozen), init.context()));
  // A change of rank two: the rows of the first task want it, those of the second its opposite.
  const auto down = tiny::normal({2, tiny::kIn}, 3, 0.125), up = tiny::normal({tiny::kOut, 2}, 4);
  auto context = std::make_shared<graft::ForwardContext>();
  context->batch = tiny::kRows;
  auto sign = graft::Tensor::empty({tiny::kRows, 1});
  for (graft::Index i = 0; i < tiny::kRows; ++i) {
    context->task_ids.push_back(i % 2);
    sign[i] = i % 2 == 0 ? 1.0F : -1.0F;
  }
  const bool learned = tiny::learns(
      "Poly", layer.parameters(),
      [&](const graft::Var& x) {
        x.tape().set_context(context);
        return layer(x);
      },
      [&](const graft::Var& x) {
        auto& tape = x.tape();
        const auto yes = graft::Transpose::yes, no = graft::Transpose::no;
        const auto change =
            matmul(matmul(x, tape.constant(down), no, yes), tape.constant(up), no, yes);
        return add(graft::linear(frozen, x), mul(change, tape.constant(sign)));
      },
      0.5, 2e-2, 600);
  return learned ? 0 : 1;
}
