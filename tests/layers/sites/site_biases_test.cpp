#include "graft/layers/sites/site_biases.hpp"

#include <catch2/catch.hpp>

using graft::Parameter;
using graft::Tape;
using graft::Tensor;

TEST_CASE("Of several active biases the last one counts, in place of the frozen one") {
  graft::SiteBiases<float> biases;
  biases.list = {{"a", Parameter(Tensor::from({1, 2}, {2}))},
                 {"b", Parameter(Tensor::from({5, 7}, {2}))}};
  CHECK_FALSE(biases.of("c"));
  biases.activate({"a", "b", "c"});
  const auto frozen = Tensor::from({3, 3}, {2});
  Tape tape;
  const auto y = tape.constant(Tensor::from({3, 3, 4, 4}, {2, 2}));  // with the frozen bias
  const auto with = biases.put(y, biases.active, frozen).value();
  CHECK(std::vector<float>(with.begin(), with.end()) == std::vector<float>{5, 7, 6, 8});
  const auto without = biases.put(y, biases.of("a"), Tensor{}).value();
  CHECK(std::vector<float>(without.begin(), without.end()) == std::vector<float>{4, 5, 5, 6});
  biases.activate({"c"});
  CHECK_FALSE(biases.active);
  CHECK(biases.put(y, biases.active, frozen).value().data() == y.value().data());
}
