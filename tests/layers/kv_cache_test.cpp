#include "graft/layers/kv_cache.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::Index;

TEST_CASE("A cache gives back all rows that it was given, layer by layer") {
  graft::KvCache cache;
  std::vector<std::vector<float>> keys(3), values(3);
  for (unsigned step = 0; step < 40; ++step) {
    const Index tokens = step % 3 == 0 ? 5 : 1;
    for (Index layer = 0; layer < 3; ++layer) {
      const auto l = static_cast<std::size_t>(layer);
      const auto k =
          checks::random_tensor<float>({tokens, 4}, 100 * step + static_cast<unsigned>(layer));
      const auto v = checks::random_tensor<float>({tokens, 6}, 7000 + step);
      keys[l].insert(keys[l].end(), k.begin(), k.end());
      values[l].insert(values[l].end(), v.begin(), v.end());
      const auto [all_k, all_v] = cache.append(layer, k, v);
      REQUIRE(std::equal(all_k.begin(), all_k.end(), keys[l].begin(), keys[l].end()));
      REQUIRE(std::equal(all_v.begin(), all_v.end(), values[l].begin(), values[l].end()));
    }
    cache.advance(tokens);
    CHECK(cache.length() == static_cast<Index>(keys[0].size()) / 4);
  }
  cache.clear();
  CHECK(cache.length() == 0);
  CHECK(cache.append(0, graft::Tensor::zeros({1, 4}), graft::Tensor::zeros({1, 6})).first.rows() ==
        1);
}
