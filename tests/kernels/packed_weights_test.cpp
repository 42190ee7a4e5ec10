#include "graft/kernels/packed_weights.hpp"

#include <catch2/catch.hpp>
#include <cstring>
#include <vector>

#include "kernels/frozen_support.hpp"

using graft::Index;
using namespace kernel_tests;
namespace kernels = graft::kernels;

TEST_CASE("Packed panels hold every weight once and zeros beyond the last output") {
  for_each_isa([](const char* name) {
    INFO(name);
    const Weight w(70, 45, 3, 1);  // three panels, the last one of 6 outputs
    const kernels::PackedWeights packed(w.dense(), true);
    CHECK(packed.out() == 70);
    CHECK(packed.in() == 45);
    CHECK(packed.has_backward());
    CHECK(packed.bytes() >= (96 * 45 + 70 * 64) * sizeof(float));
    for (Index o = 0; o < 96; ++o)
      for (Index i = 0; i < 45; ++i)
        CHECK(packed.forward_panels()[(o / 32 * 45 + i) * 32 + o % 32] ==
              (o < 70 ? w(o, i) : 0.0f));
    for (Index o = 0; o < 70; ++o)
      for (Index i = 0; i < 64; ++i)
        CHECK(packed.backward_panels()[(i / 32 * 70 + o) * 32 + i % 32] ==
              (i < 45 ? w(o, i) : 0.0f));
  });
}

TEST_CASE("Packing a stored weight gives the same panels as packing its values") {
  for_each_isa([](const char* name) {
    INFO(name);
    const Weight w(300, 1500, 9);
    const kernels::PackedWeights dense(w.dense(), true), stored(w.quantised(), true);
    const std::size_t forward = 320 * 1500 * sizeof(float), backward = 300 * 1504 * sizeof(float);
    CHECK(std::memcmp(dense.forward_panels(), stored.forward_panels(), forward) == 0);
    CHECK(std::memcmp(dense.backward_panels(), stored.backward_panels(), backward) == 0);
  });
}

TEST_CASE("Packing as bf16 halves the panels and pairs neighbouring inputs") {
  for_each_isa([](const char* name) {
    INFO(name);
    const Weight w(40, 37, 3);  // its values are exact in bf16
    const kernels::PackedWeights f32(w.dense()), words(w.dense(), false, kernels::Compute::bf16);
    CHECK(words.compute() == kernels::Compute::bf16);
    CHECK(words.forward_panels() == nullptr);
    CHECK(static_cast<double>(words.bytes()) < 0.55 * static_cast<double>(f32.bytes()));
    for (Index o = 0; o < 64; ++o) {
      for (Index i = 0; i < 38; ++i) {
        const std::uint32_t word = words.forward_words()[(o / 32 * 19 + i / 2) * 32 + o % 32];
        const std::uint32_t bits = i % 2 == 0 ? word << 16 : word & 0xffff0000u;
        float value;
        std::memcpy(&value, &bits, sizeof value);
        CHECK(value == (o < 40 && i < 37 ? w(o, i) : 0.0f));
      }
    }
  });
}

TEST_CASE("Packing checks its weight") {
  CHECK_THROWS_AS(kernels::PackedWeights({.out = 3, .in = 4}), graft::ValueError);
  CHECK_THROWS_AS(kernels::PackedWeights({.out = -1, .in = 4}), graft::ShapeError);
  const kernels::PackedWeights empty(kernels::FrozenWeight{.out = 0, .in = 4});
  CHECK(empty.out() == 0);
  CHECK_FALSE(empty.has_backward());
}
