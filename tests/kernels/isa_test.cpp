#include "graft/kernels/isa.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

#include "graft/kernels/simd.hpp"
#include "kernels/support.hpp"

using graft::Index;
using graft::kernels::Isa;
using namespace kernel_tests;

namespace {

/// initial_isa() with GRAFT_ISA set to `value`.
Isa isa_for(const char* value) {
  const char* old = std::getenv("GRAFT_ISA");
  const std::string saved = old != nullptr ? old : "";
  ::setenv("GRAFT_ISA", value, 1);
  struct Restore {
    const std::string& saved;
    bool was_set;
    ~Restore() {
      if (was_set) {
        ::setenv("GRAFT_ISA", saved.c_str(), 1);
      } else {
        ::unsetenv("GRAFT_ISA");
      }
    }
  } restore{saved, old != nullptr};
  return graft::kernels::detail::initial_isa();
}

}  // namespace

// Each helper of simd.hpp on one vector, for every instruction set.
#define GRAFT_FOREACH_FILE "kernels/simd_probe.hpp"
#include "graft/kernels/impl/foreach_isa.hpp"

TEST_CASE("GRAFT_ISA names the instruction set, and wrong names are refused") {
  CHECK(isa_for("baseline") == Isa::baseline);
  CHECK(graft::kernels::isa_supported(isa_for("")));
  CHECK_THROWS_AS(isa_for("avx1024"), graft::ValueError);
  CHECK_THROWS_AS(isa_for("AVX2"), graft::ValueError);
  for (Isa isa : {Isa::avx2, Isa::avx512, Isa::avx512_bf16, Isa::amx, Isa::amx_emulated}) {
    if (graft::kernels::isa_supported(isa)) {
      CHECK(isa_for(graft::kernels::isa_name(isa)) == isa);
    } else {
      CHECK_THROWS_AS(isa_for(graft::kernels::isa_name(isa)), graft::ValueError);
      CHECK_THROWS_AS(graft::kernels::set_isa(isa), graft::ValueError);
    }
  }
}

TEST_CASE("An instruction set is supported only with those before it") {
  bool supported = true;
  for (Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512, Isa::avx512_bf16, Isa::amx}) {
    const bool now = graft::kernels::isa_supported(isa);
    if (!supported) CHECK_FALSE(now);
    supported = now;
  }
}

TEST_CASE("Beside tiles, kernels run with the best vectors there are") {
  const Isa before = graft::kernels::active_isa();
  graft::kernels::set_isa(Isa::amx_emulated);
  CHECK(graft::kernels::active_isa() == Isa::amx_emulated);
  CHECK(graft::kernels::vector_isa() < Isa::amx);
  for (Isa isa : {Isa::avx2, Isa::avx512, Isa::avx512_bf16})
    if (graft::kernels::isa_supported(isa)) CHECK(graft::kernels::vector_isa() >= isa);
  graft::kernels::set_isa(Isa::baseline);
  CHECK(graft::kernels::vector_isa() == Isa::baseline);
  graft::kernels::set_isa(before);
}

TEST_CASE("Vector helpers agree with scalar arithmetic on every instruction set") {
  for_each_isa([](const char* name) {
    INFO(name);
    const Index lanes = GRAFT_DISPATCH(probe_lanes)();
    const auto n = static_cast<std::size_t>(lanes);
    const auto a = normal_values<float>(lanes, 1, 3), b = normal_values<float>(lanes, 2, 3);
    std::vector<float> out(n * 8);
    GRAFT_DISPATCH(probe_arithmetic)(a.data(), b.data(), out.data());
    float sum = 0, largest = a[0];
    for (std::size_t i = 0; i < n; ++i) {
      CHECK(out[i] == Approx(a[i] * b[i] + 1.5f).epsilon(1e-6).margin(1e-6));
      CHECK(out[n + i] == std::max(a[i], b[i]));
      CHECK(out[2 * n + i] == std::min(a[i], b[i]));
      CHECK(out[3 * n + i] == std::fabs(a[i]));
      CHECK(out[4 * n + i] == std::sqrt(std::fabs(a[i])));
      CHECK(out[5 * n + i] == static_cast<float>(static_cast<int>(a[i])));
      CHECK(out[6 * n + i] == static_cast<float>(i));
      sum += a[i];
      largest = std::max(largest, a[i]);
    }
    CHECK(out[7 * n] == Approx(sum).margin(1e-5));
    CHECK(out[7 * n + 1] == largest);
  });
}

TEST_CASE("Partial loads and stores touch only the first lanes") {
  for_each_isa([](const char* name) {
    INFO(name);
    const Index lanes = GRAFT_DISPATCH(probe_lanes)();
    for (Index count = 0; count <= lanes; ++count) {
      // Exactly as long as may be read, so that a sanitizer sees anything beyond.
      const std::vector<float> from(static_cast<std::size_t>(count), 2.0f);
      std::vector<float> to(static_cast<std::size_t>(count), 7.0f);
      CHECK(GRAFT_DISPATCH(probe_partial)(from.data(), to.data(), count) ==
            2.0f * static_cast<float>(count));
      for (float value : to) CHECK(value == 2.0f);
    }
  });
}

TEST_CASE("The vector exponential is accurate over its whole range") {
  for_each_isa([](const char* name) {
    INFO(name);
    const Index lanes = GRAFT_DISPATCH(probe_lanes)();
    std::vector<float> x(static_cast<std::size_t>(lanes)), y(x.size());
    double worst = 0;
    for (float start = -87.0f; start < 88.5f; start += 0.0131f) {
      for (std::size_t i = 0; i < x.size(); ++i) x[i] = start + static_cast<float>(i) * 0.0007f;
      GRAFT_DISPATCH(probe_exp)(x.data(), y.data());
      for (std::size_t i = 0; i < x.size(); ++i) {
        const double expected = std::exp(static_cast<double>(x[i]));
        worst = std::max(worst, std::fabs(y[i] - expected) / expected);
      }
    }
    CHECK(worst < 2.5e-7);
    constexpr float inf = std::numeric_limits<float>::infinity();
    x.assign(x.size(), 0.0f);
    x[0] = std::numeric_limits<float>::quiet_NaN();
    x[1] = inf;
    x[2] = -inf;
    GRAFT_DISPATCH(probe_exp)(x.data(), y.data());
    CHECK(std::isnan(y[0]));
    CHECK(y[1] == inf);
    CHECK(y[2] == 0.0f);
    CHECK(y[3] == 1.0f);
    x[0] = 100.0f;
    x[1] = -110.0f;
    x[2] = -100.0f;
    GRAFT_DISPATCH(probe_exp)(x.data(), y.data());
    CHECK(y[0] == inf);
    CHECK(y[1] == 0.0f);
    CHECK(y[2] == Approx(3.8e-44).margin(2e-45));
  });
}
