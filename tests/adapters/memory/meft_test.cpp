#include "graft/adapters/memory/meft.hpp"

#include "adapters/memory/tiny_model.hpp"

using graft::Index;
using graft::MEFTConfig;

namespace {

MEFTConfig config_of(Index variant) {
  MEFTConfig config;
  config.variant = variant;
  config.adapter_dim = 3;
  config.layer_norm = variant == 2;
  config.x1_factor = variant == 2 ? 1 : 0.1;
  config.x2_factor = variant == 1 ? 1 : 0.1;
  return config;
}

/// Worst difference between gradients that go back over the inverse and those of a whole graph.
template <class T>
double inverse_error(MEFTConfig config, Index layers, double scale) {
  memory::OnLlama<T> reversible(config, layers);
  config.num_rev_layers = 0;
  memory::OnLlama<T> plain(config, layers);
  memory::randomize(reversible.set(), scale);
  memory::randomize(plain.set(), scale);
  CHECK(checks::relative_error(reversible.logits(memory::OnLlama<T>::batch()),
                               plain.logits(memory::OnLlama<T>::batch())) == 0);
  const auto a = reversible.gradients(), b = plain.gradients();
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    worst = std::max(worst, checks::relative_error(a[i], b[i]));
  return worst;
}

}  // namespace

TEST_CASE("Two streams have the gradients of their function, over the inverse or a graph") {
  for (const Index variant : {1, 2, 3}) {
    INFO("variant " << variant);
    auto config = config_of(variant);
    CHECK(inverse_error<double>(config, 3, 0.3) < 1e-8);
    // Single precision too, where rounding would grow a hundredfold a block.
    CHECK(inverse_error<float>(config, 4, 0.3) < 1e-4);
    config.num_rev_layers = 2;
    memory::OnLlama<double> setup(config);
    CHECK(setup.set().trainable_elements() ==
          3 * (2 * (2 * 3 * 12 + 3 + 12) + (variant == 2 ? 2 * 12 : 0)));
    memory::randomize(setup.set());
    CHECK(setup.gradient_error() < 1e-5);
  }
}

TEST_CASE("A stream without its adapter goes on from the two states before") {
  // h of the last stream: F(h_n) + λ h_{n-1}, so that λ near 0 is the model itself.
  auto config = config_of(1);
  config.x1_factor = 1e-12;
  memory::OnLlama<double> setup(config, 2);
  for (const auto& [key, tensor] : setup.set().tensors())
    if (key.find("adapter_up") != std::string::npos)
      tensor.parameter.assign(graft::BasicTensor<double>::zeros(tensor.parameter.shape()));
  const auto b = memory::OnLlama<double>::batch();
  (void)setup.logits(b);
  const auto [one, two] = setup.part<graft::MEFTStack<double>>().last_streams();
  const auto off = setup.adapters.disabled();
  graft::BasicTape<double> tape({.gradients = false, .training = false});
  // The final norm of the model is no part of the streams: compare what it makes of them.
  const auto h = setup.model.hidden(tape, b).value();
  CHECK(checks::relative_error(setup.model.norm.norm()(tape.constant(two)).value(), h) < 1e-8);
  CHECK(checks::relative_error(one, two) > 0.1);
}

TEST_CASE("MEFT refuses what has no inverse") {
  auto config = config_of(1);
  config.x1_factor = 0;
  CHECK_THROWS_WITH(memory::OnLlama<double>(config), Catch::Contains("x1_factor 0"));
  config = config_of(1);
  config.variant = 4;
  CHECK_THROWS_WITH(memory::OnLlama<double>(config), Catch::Contains("variant 4"));
  memory::OnLlama<double> setup(config_of(3));
  CHECK_THROWS_AS(setup.adapters.merge(), graft::ValueError);
}
