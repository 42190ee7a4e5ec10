// Family representation: LoReFT behind a linear layer. It learns what the outputs are in a few
// directions and leaves the others alone; where every token is edited it folds into the layer.
#include "graft/adapters/representation/loreft.hpp"
#include "tiny_layer.hpp"

int main() {
  const auto frozen = tiny::frozen_layer();
  // The teacher puts the outputs' part along four directions somewhere else.
  const auto directions = graft::retracted_rows(tiny::normal({4, tiny::kOut}, 3));
  const auto target = tiny::normal({4, tiny::kOut}, 4, 0.125);
  const auto teacher = [&](const graft::Var& x) {
    auto& tape = x.tape();
    const auto yes = graft::Transpose::yes, no = graft::Transpose::no;
    const auto h = graft::linear(frozen, x);
    const auto change = sub(matmul(h, tape.constant(target), no, yes),
                            matmul(h, tape.constant(directions), no, yes));
    return add(h, matmul(change, tape.constant(directions)));
  };

  const graft::LoReftConfig config{.rank = 4, .positions = "all", .parametrisation = "householder"};
  graft::StandaloneInit<float> init(7);
  const graft::Adapted layer(frozen,
                             graft::LoReft(config, graft::site_info(frozen), init.context()));
  const bool learned = tiny::learns(
      "LoReFT", layer.parameters(), [&](const graft::Var& x) { return layer(x); }, teacher, 0.1,
      2e-2, 600);
  const double error = tiny::merge_error(layer);
  std::printf("merged and unmerged differ by %.1e\n", error);

  // At the first and last tokens of a prompt only; an answer that follows is not edited.
  const graft::Adapted ends(
      frozen,
      graft::LoReft({.rank = 4, .positions = graft::ConfigValue::Map{{"first", 2}, {"last", 1}}},
                    graft::site_info(frozen), init.context()));
  auto context = std::make_shared<graft::ForwardContext>();
  context->prompt_lengths = {5};
  graft::Tape tape({.gradients = false, .training = false});
  tape.set_context(context);
  const auto x = tape.constant(tiny::normal({8, tiny::kIn}, 9));
  const auto before = graft::linear(frozen, x).value(), after = ends(x).value();
  int edited = 0;
  for (graft::Index token = 0; token < 8; ++token)
    edited +=
        std::equal(before.data() + token * tiny::kOut, before.data() + (token + 1) * tiny::kOut,
                   after.data() + token * tiny::kOut)
            ? 0
            : 1;
  std::printf("%d of 8 tokens edited\n", edited);
  return learned && error < 1e-4 && edited == 3 ? 0 : 1;
}
