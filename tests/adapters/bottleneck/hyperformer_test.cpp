#include "graft/adapters/bottleneck/hyperformer.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::Index;
using graft::Transpose;

TEST_CASE("HyperFormer runs the plain adapter that it exports for its task, at every place") {
  for (const bool with_position : {false, true})
    for (const auto role : {graft::HiddenRole::attention, graft::HiddenRole::feed_forward}) {
      graft::HiddenSiteInfo<double> site;
      site.path = "layer.1.output";
      site.width = 6;
      site.layer = 1;
      site.model.layers = 2;
      site.role = role;
      graft::HyperFormerConfig config;
      config.adapter_dim = 3;
      config.task_embedding_dim = 4;
      config.task_hidden_dim = 5;
      config.projected_task_embedding_dim = 4;
      config.num_tasks = 3;
      config.task = 2;
      config.non_linearity = "relu";
      graft::StandaloneInit<double> init(3);
      const graft::BasicHyperFormer<double> adapter(config, with_position, site, init.context());
      checks::randomize(adapter);
      graft::BasicTape<double> tape({.gradients = false});
      const auto h = tape.constant(checks::random_tensor<double>({5, 6}, 4));
      const auto plain = [&](Index task) {
        const auto e = adapter.exported(task);
        const auto inner = relu(add(matmul(h, tape.constant(e[0]), Transpose::no, Transpose::yes),
                                    tape.constant(e[1])));
        const auto m = add(matmul(inner, tape.constant(e[2]), Transpose::no, Transpose::yes),
                           tape.constant(e[3]));
        return add(layer_norm(m, tape.constant(e[4]), tape.constant(e[5]), 1e-5), h).value();
      };
      const auto online = adapter.apply(h, h, h).value();
      CHECK(checks::relative_error(online, plain(2)) < 1e-12);
      CHECK(checks::relative_error(online, plain(0)) > 1e-3);
      CHECK_THROWS_WITH(adapter.exported(3), Catch::Contains("task 3 of 3"));
    }
}
