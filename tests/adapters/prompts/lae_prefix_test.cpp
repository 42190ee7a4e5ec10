#include "graft/adapters/prompts/lae_prefix.hpp"

#include "adapters/prompts/tiny_llama.hpp"

using graft::Index;

TEST_CASE("LAE prefix: in the first blocks, with the right gradients and without positions") {
  graft::LaePrefixConfig config;
  config.num_virtual_tokens = 3;
  config.num_layers = 1;
  prompts::Setup<double> setup(config);
  CHECK(setup.set().trainable_elements() == 2 * 3 * prompts::kKeyWidth);
  CHECK(setup.model.virtual_positions() == 0);
  CHECK(setup.gradient_error() < 1e-6);
  CHECK(setup.expect_same_after_saving() ==
        std::vector<std::string>{"base_model.model.model.layers.0.self_attn.prefix_keys",
                                 "base_model.model.model.layers.0.self_attn.prefix_values"});
  config.num_layers = 0;
  prompts::Setup<float> all(config);
  CHECK(all.set().trainable_elements() == prompts::kLayers * 2 * 3 * prompts::kKeyWidth);
  all.expect_cached_generation();
  config.module = "lora";
  CHECK_THROWS_WITH(config.validate(), Catch::Contains("expected prefix"));
}

TEST_CASE("LAE prefix: the attention of the text loses the prefix's share, the prefix is whole") {
  graft::StandaloneInit<double> init(1);
  graft::BasicLaePrefix<double> prefix({.num_virtual_tokens = 2}, 3, init.context());
  for (const auto& t : prefix.tensors())
    for (const double v : t.parameter.value()) CHECK((v >= 0 && v <= 0.01));
  checks::randomize(prefix, 1);
  const auto pk = prefix.tensors()[0].parameter.value(), pv = prefix.tensors()[1].parameter.value();
  const auto q = checks::random_tensor<double>({4, 3}, 1),
             k = checks::random_tensor<double>({5, 3}, 2),
             v = checks::random_tensor<double>({5, 3}, 3);
  graft::BasicTape<double> tape;
  graft::AttentionCall<double> call;
  call.q = tape.constant(q);
  call.k = tape.constant(k);
  call.v = tape.constant(v);
  call.options.causal = false;
  call.options.scale = 0.6;
  prefix.before(call);
  const auto y = prefix.after(call, attention(call.q, call.k, call.v, call.options)).value();
  for (Index i = 0; i < 4; ++i) {
    const auto weight = [&](const graft::BasicTensor<double>& keys, Index j) {
      double s = 0;
      for (Index c = 0; c < 3; ++c) s += 0.6 * q(i, c) * keys(j, c);
      return std::exp(s);
    };
    double own = 0, text = 0;
    for (Index j = 0; j < 2; ++j) own += weight(pk, j);
    for (Index j = 0; j < 5; ++j) text += weight(k, j);
    for (Index c = 0; c < 3; ++c) {
      double expected = 0;
      for (Index j = 0; j < 2; ++j) expected += weight(pk, j) / own * pv(j, c);
      for (Index j = 0; j < 5; ++j) expected += weight(k, j) / (own + text) * v(j, c);
      CHECK(y(i, c) == Approx(expected));
    }
  }
}
