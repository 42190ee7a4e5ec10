#include "graft/kernels/frozen.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/frozen_support.hpp"

using graft::Index;
using namespace kernel_tests;
namespace kernels = graft::kernels;
using kernels::Compute;
using kernels::FrozenWeight;
using kernels::LowRankTerm;

namespace {

/// The nearest bf16, ties to even.
float to_bf16(float v) {
  std::uint32_t bits;
  std::memcpy(&bits, &v, sizeof bits);
  bits = (bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u;
  std::memcpy(&v, &bits, sizeof v);
  return v;
}

/// One product with everything that can be added to it.
struct Problem {
  bool backward;
  Index m, rank;
  bool with_bias, accumulate;
  const Weight& w;
  Index n, k, lda, ldc, ldh, ldp;
  std::vector<float> a, c, bias, h, p;

  Problem(const Weight& weight, bool backward_, Index rows, Index rank_, bool bias_,
          bool accumulate_, unsigned seed, Index gap)
      : backward(backward_),
        m(rows),
        rank(rank_),
        with_bias(bias_ && !backward_),
        accumulate(accumulate_),
        w(weight),
        n(backward_ ? weight.in : weight.out),
        k(backward_ ? weight.out : weight.in),
        lda(k + gap),
        ldc(n + 2 * gap),
        ldh(rank_ + gap),
        ldp(n + gap),
        a(normal_values<float>(m * lda, seed)),
        c(normal_values<float>(m * ldc, seed + 1)),
        bias(normal_values<float>(n, seed + 2)),
        h(normal_values<float>(m * ldh, seed + 3)),
        p(normal_values<float>(rank * ldp, seed + 4)) {}

  std::vector<float> run(const FrozenWeight& form, Compute compute = Compute::f32) const {
    std::vector<float> result = c;
    const LowRankTerm term{h.data(), ldh, p.data(), ldp, rank};
    const LowRankTerm* low_rank = rank > 0 ? &term : nullptr;
    if (backward) {
      kernels::frozen_backward_input(form, a.data(), m, lda, result.data(), ldc, accumulate,
                                     low_rank, compute);
    } else {
      kernels::frozen_forward(form, a.data(), m, lda, with_bias ? bias.data() : nullptr,
                              result.data(), ldc, accumulate, low_rank, compute);
    }
    return result;
  }

  /// The norm of the error over the norm of the result.
  double relative_error(const std::vector<float>& result) const {
    const auto sums = expected(Compute::f32);
    double difference = 0, norm = 0;
    for (Index i = 0; i < m; ++i) {
      for (Index j = 0; j < n; ++j) {
        const double sum = sums[static_cast<std::size_t>(i * n + j)];
        const double off = static_cast<double>(result[static_cast<std::size_t>(i * ldc + j)]) - sum;
        difference += off * off;
        norm += sum * sum;
      }
    }
    return std::sqrt(difference / norm);
  }

  /// The result in double precision, with A and W rounded first for bf16.
  std::vector<double> expected(Compute compute) const {
    const auto rounded = [&](float v) {
      return static_cast<double>(compute == Compute::bf16 ? to_bf16(v) : v);
    };
    std::vector<double> left(static_cast<std::size_t>(m * k));
    std::vector<double> right(static_cast<std::size_t>(n * k));
    for (Index i = 0; i < m; ++i)
      for (Index l = 0; l < k; ++l)
        left[static_cast<std::size_t>(i * k + l)] =
            rounded(a[static_cast<std::size_t>(i * lda + l)]);
    for (Index j = 0; j < n; ++j)
      for (Index l = 0; l < k; ++l)
        right[static_cast<std::size_t>(j * k + l)] = rounded(backward ? w(l, j) : w(j, l));
    std::vector<double> result(static_cast<std::size_t>(m * n));
    for (Index i = 0; i < m; ++i) {
      for (Index j = 0; j < n; ++j) {
        const double* x = left.data() + i * k;
        const double* y = right.data() + j * k;
        double sum =
            accumulate ? static_cast<double>(c[static_cast<std::size_t>(i * ldc + j)]) : 0.0;
        if (with_bias) sum += static_cast<double>(bias[static_cast<std::size_t>(j)]);
        for (Index l = 0; l < k; ++l) sum += x[l] * y[l];
        for (Index r = 0; r < rank; ++r)
          sum += static_cast<double>(h[static_cast<std::size_t>(i * ldh + r)]) *
                 static_cast<double>(p[static_cast<std::size_t>(r * ldp + j)]);
        result[static_cast<std::size_t>(i * n + j)] = sum;
      }
    }
    return result;
  }

  /// Largest error a product summed; infinite if a gap between rows was written to.
  double error(const std::vector<float>& result, Compute compute = Compute::f32) const {
    std::vector<double>& sums = compute == Compute::bf16 ? expected_bf16_ : expected_f32_;
    if (sums.empty()) sums = expected(compute);
    double worst = 0;
    for (Index i = 0; i < m; ++i) {
      for (Index j = 0; j < ldc; ++j) {
        const auto at = static_cast<std::size_t>(i * ldc + j);
        if (j >= n) {
          if (result[at] != c[at]) return std::numeric_limits<double>::infinity();
          continue;
        }
        const double difference =
            std::fabs(static_cast<double>(result[at]) - sums[static_cast<std::size_t>(i * n + j)]);
        if (std::isnan(difference)) return difference;
        worst = std::max(worst, difference / static_cast<double>(k + rank + 1));
      }
    }
    return worst;
  }

 private:
  mutable std::vector<double> expected_f32_, expected_bf16_;  // computed once
};

/// Products of a row in 8 bits with the rows of Weight::quantised().
void dot_bytes(const void* rows, Index row_bytes, Index count, Index in, const std::int8_t* codes,
               const float* pairs, float* y) {
  std::vector<float> w(static_cast<std::size_t>(in));
  for (Index j = 0; j < count; ++j) {
    decode_bytes(static_cast<const std::uint8_t*>(rows) + j * row_bytes, 0, in, w.data());
    y[j] = 0;
    for (Index l = 0; l < in; ++l)
      y[j] += pairs[2 * (l / kernels::kInt8Block)] * static_cast<float>(codes[l]) *
              w[static_cast<std::size_t>(l)];
  }
}

}  // namespace

TEST_CASE("Frozen products agree with double precision for every form of W") {
  for_each_isa([](const char* name) {
    INFO(name);
    std::mt19937 random(3);
    auto size = [&](unsigned limit) { return static_cast<Index>(1 + random() % limit); };
    for (unsigned round = 0; round < 60; ++round) {
      const Weight w(size(round % 3 == 0 ? 20 : 150), size(round % 5 == 0 ? 600 : 140), round,
                     static_cast<Index>(round % 3));
      const kernels::PackedWeights packed(w.dense()), both(w.quantised(), true);
      const Index m = size(round % 2 == 0 ? 12 : 90);
      const Index rank = round % 3 == 0 ? 0 : size(20);
      for (bool backward : {false, true}) {
        const Problem problem(w, backward, m, rank, (round & 1) != 0, (round & 2) != 0, round,
                              static_cast<Index>(round % 4));
        INFO("backward " << backward << " m " << m << " out " << w.out << " in " << w.in << " rank "
                         << rank);
        REQUIRE(problem.error(problem.run(w.dense())) < 5e-7);
        REQUIRE(problem.error(problem.run(w.quantised())) < 5e-7);
        REQUIRE(problem.error(problem.run(w.only(packed))) < 5e-7);
        REQUIRE(problem.error(problem.run(w.only(both))) < 5e-7);
        FrozenWeight all = w.dense();
        all.packed = &both;
        REQUIRE(problem.error(problem.run(all)) < 5e-7);
      }
    }
  });
}

TEST_CASE("Frozen products agree with double precision where k is cut into blocks") {
  for_each_isa([](const char* name) {
    INFO(name);
    for (Index m : {1, 5, 30, 75}) {
      const Weight w(40, 2100, 5), tall(1300, 45, 6);
      for (const Weight* weight : {&w, &tall}) {
        const kernels::PackedWeights packed(weight->dense());
        for (bool backward : {false, true}) {
          const Problem problem(*weight, backward, m, 7, true, true, 9, 1);
          INFO("backward " << backward << " m " << m << " out " << weight->out);
          CHECK(problem.error(problem.run(weight->dense())) < 5e-7);
          CHECK(problem.error(problem.run(weight->quantised())) < 5e-7);
          CHECK(problem.error(problem.run(weight->only(packed))) < 5e-7);
        }
      }
    }
  });
}

TEST_CASE("Frozen products give the same bits for any number of threads") {
  const Weight w(200, 330, 21);
  const kernels::PackedWeights packed(w.dense());
  for_each_isa([&](const char* name) {
    INFO(name);
    for (Index m : {3, 20, 150}) {
      for (bool backward : {false, true}) {
        const Problem problem(w, backward, m, 8, true, false, 2, 0);
        for (const FrozenWeight& form : {w.dense(), w.quantised(), w.only(packed)}) {
          const auto results = with_threads([&] { return problem.run(form); });
          for (const auto& result : results)
            CHECK(std::memcmp(result.data(), results[0].data(), result.size() * sizeof(float)) ==
                  0);
        }
      }
    }
  });
}

TEST_CASE(
    "Packed weights beyond a cache serve all rows, with the same bits for any number of threads") {
  const Weight w(1100, 1000, 23);
  const kernels::PackedWeights packed(w.dense(), true), words(w.dense(), true, Compute::bf16);
  for_each_isa([&](const char* name) {
    INFO(name);
    for (const Index m : {75, 150}) {
      for (const bool backward : {false, true}) {
        const Problem problem(w, backward, m, 3, true, false, 2, 0);
        const auto results = with_threads([&] { return problem.run(w.only(packed)); });
        CHECK(problem.relative_error(results[0]) < 1e-6);
        for (const auto& result : results) CHECK(result == results[0]);
        const auto rounded =
            with_threads([&] { return problem.run(w.only(words), Compute::bf16); });
        CHECK(problem.relative_error(rounded[0]) < 6e-3);
        for (const auto& result : rounded) CHECK(result == rounded[0]);
      }
    }
  });
}

TEST_CASE("With many rows, stored and packed weights of the same values give the same bits") {
  for_each_isa([](const char* name) {
    INFO(name);
    for (const Index in : {300, 576, 1088}) {  // the last two are decoded by panels
      const Weight w(77, in, 4);
      const kernels::PackedWeights packed(w.dense(), true);
      for (const bool backward : {false, true}) {
        for (const Index m : {64, 200}) {
          INFO("in " << in << " backward " << backward << " m " << m);
          const Problem problem(w, backward, m, 5, true, true, 2, 0);
          const auto expected = problem.run(w.only(packed));
          CHECK(problem.run(w.dense()) == expected);
          CHECK(problem.run(w.quantised()) == expected);
        }
      }
    }
  });
}

TEST_CASE("Several products with one x give what each gives alone and the plain loop says") {
  // Two of more outputs than a task takes; five are more than go together.
  const Index in = 96, ldx = in + 5;
  std::vector<Weight> weights;
  for (const Index out : {33, 700, 3, 64, 17})
    weights.emplace_back(out, in, static_cast<unsigned>(out));
  std::vector<FrozenWeight> in_8_bits, mixed;
  for (const Weight& w : weights) {
    mixed.push_back(w.quantised());
    in_8_bits.push_back(w.quantised());
    in_8_bits.back().dot_int8 = dot_bytes;
  }
  mixed[1].dot_int8 = dot_bytes;
  const auto bias = normal_values<float>(700, 3);
  for_each_isa([&](const char* name) {
    INFO(name);
    for (const auto* forms : {&in_8_bits, &mixed})
      for (const Index count : {1, 4, 5})
        for (const Index m : {0, 1, 8, 9}) {
          CAPTURE(forms == &mixed, count, m);
          const auto x = normal_values<float>(m * ldx, 7);
          std::vector<std::vector<float>> together, alone;
          std::vector<kernels::FrozenPart> parts;
          for (Index p = 0; p < count; ++p) {
            const FrozenWeight& w = (*forms)[static_cast<std::size_t>(p)];
            const Index ldy = w.out + 2;
            together.emplace_back(static_cast<std::size_t>(m * ldy), 7.0F);
            parts.push_back({.w = w,
                             .bias = p % 2 == 0 ? bias.data() : nullptr,
                             .y = together.back().data(),
                             .ldy = ldy});
            alone.push_back(together.back());
            kernels::frozen_forward(w, x.data(), m, ldx, parts.back().bias, alone.back().data(),
                                    ldy);
          }
          kernels::frozen_forward_each(parts.data(), count, x.data(), m, ldx);
          CHECK(together == alone);
          double error = 0, norm = 0;
          for (std::size_t p = 0; p < parts.size(); ++p)
            for (Index i = 0; i < m; ++i)
              for (Index o = 0; o < weights[p].out; ++o) {
                double sum =
                    parts[p].bias == nullptr ? 0 : double{bias[static_cast<std::size_t>(o)]};
                for (Index l = 0; l < in; ++l)
                  sum +=
                      double{x[static_cast<std::size_t>(i * ldx + l)]} * double{weights[p](o, l)};
                const float y = together[p][static_cast<std::size_t>(i * parts[p].ldy + o)];
                error += (double{y} - sum) * (double{y} - sum);
                norm += sum * sum;
              }
          CHECK(error <= 1e-4 * norm);
        }
  });
}

TEST_CASE("Frozen products of empty sizes do what the formula says") {
  const Weight w(5, 4, 1);
  std::vector<float> y{1, 2, 3, 4, 5};
  const std::vector<float> before = y, bias{1, 1, 2, 2, 3};
  kernels::frozen_forward(w.dense(), nullptr, 0, 4, bias.data(), y.data(), 5);
  CHECK(y == before);
  const Weight no_inputs(5, 0, 1);
  for (const FrozenWeight& form : {no_inputs.dense(), no_inputs.quantised()}) {
    y = before;
    kernels::frozen_forward(form, y.data(), 1, 0, bias.data(), y.data(), 5, true);
    CHECK(y == std::vector<float>{2, 3, 5, 6, 8});
    kernels::frozen_forward(form, bias.data(), 1, 0, nullptr, y.data(), 5);
    CHECK(y == std::vector<float>(5, 0.0f));
    const std::vector<float> h{2, 3}, p{1, 0, 0, 0, 1, 0, 1, 0, 0, 1};
    const LowRankTerm term{h.data(), 2, p.data(), 5, 2};
    kernels::frozen_forward(form, bias.data(), 1, 0, nullptr, y.data(), 5, false, &term);
    CHECK(y == std::vector<float>{2, 3, 0, 0, 5});
    kernels::frozen_backward_input(form, bias.data(), 1, 5, y.data(), 0, false);
    CHECK(y == std::vector<float>{2, 3, 0, 0, 5});
  }
  const Weight no_outputs(0, 5, 1);
  const kernels::PackedWeights packed(no_outputs.dense(), true);
  kernels::frozen_backward_input(no_outputs.only(packed), bias.data(), 1, 0, y.data(), 5, false);
  CHECK(y == std::vector<float>(5, 0.0f));
}

TEST_CASE("Frozen products pass NaN on in their own row only") {
  const Weight w(50, 70, 8);
  const kernels::PackedWeights packed(w.dense(), true);
  for_each_isa([&](const char* name) {
    INFO(name);
    for (bool backward : {false, true}) {
      for (Index m : {3, 40}) {
        Problem problem(w, backward, m, 3, true, false, 2, 1);
        problem.a[static_cast<std::size_t>(problem.lda + problem.k - 1)] =
            std::numeric_limits<float>::quiet_NaN();
        problem.c.assign(problem.c.size(), std::numeric_limits<float>::quiet_NaN());
        for (const FrozenWeight& form : {w.dense(), w.quantised(), w.only(packed)}) {
          const auto result = problem.run(form);
          for (Index j = 0; j < problem.n; ++j) {
            CHECK(std::isfinite(result[static_cast<std::size_t>(j)]));
            CHECK(std::isnan(result[static_cast<std::size_t>(problem.ldc + j)]));
          }
        }
      }
    }
  });
}

TEST_CASE("Frozen products in double precision agree with those in single precision") {
  const Weight w(33, 47, 12, 2);
  const std::vector<double> values = widen(w.values);
  const kernels::FrozenWeightDouble wide{w.out, w.in, values.data(), w.row_stride};
  for (bool accumulate : {false, true}) {
    for (bool backward : {false, true}) {
      const Problem problem(w, backward, 19, 4, true, accumulate, 31, 1);
      const auto a = widen(problem.a), bias = widen(problem.bias), h = widen(problem.h),
                 p = widen(problem.p);
      std::vector<double> c = widen(problem.c);
      const kernels::LowRankTermT<double> term{h.data(), problem.ldh, p.data(), problem.ldp, 4};
      if (backward) {
        kernels::frozen_backward_input(wide, a.data(), 19, problem.lda, c.data(), problem.ldc,
                                       accumulate, &term);
      } else {
        kernels::frozen_forward(wide, a.data(), 19, problem.lda, bias.data(), c.data(), problem.ldc,
                                accumulate, &term);
      }
      const auto single = problem.run(w.dense());
      for (std::size_t i = 0; i < c.size(); ++i)
        CHECK(static_cast<double>(single[i]) == Approx(c[i]).margin(1e-4));
    }
  }
}

TEST_CASE("bf16 products round x and W to bf16 and nothing else") {
  std::mt19937 random(8);
  auto size = [&](unsigned limit) { return static_cast<Index>(1 + random() % limit); };
  for (kernels::Isa isa :
       {kernels::Isa::baseline, kernels::Isa::avx2, kernels::Isa::avx512, kernels::Isa::avx512_bf16,
        kernels::Isa::amx, kernels::Isa::amx_emulated}) {
    if (!kernels::isa_supported(isa)) continue;
    const kernels::Isa before = kernels::active_isa();
    kernels::set_isa(isa);
    INFO(kernels::isa_name(isa));
    const unsigned rounds = isa == kernels::Isa::amx_emulated ? 12 : 24;
    for (unsigned round = 0; round < rounds; ++round) {
      Weight w(size(round % 4 == 0 ? 20 : 150), size(round % 3 == 0 ? 500 : 140), round);
      if (round == 7) w = Weight(40, 4500, round);
      if (round == 5) w = Weight(4600, 33, round);
      const Index rank = round % 3 == 0 ? 0 : size(20), m = 25 + size(round % 2 == 0 ? 20 : 90);
      Weight fine = w;  // its values are not exact in bf16
      fine.values = normal_values<float>(w.out * w.in, round + 1000);
      const kernels::PackedWeights f32(fine.dense()), words(fine.dense(), false, Compute::bf16),
          both(fine.dense(), true, Compute::bf16);
      FrozenWeight all = fine.dense();
      all.packed = &both;
      // Tiles take the term in split parts.
      const double close = isa >= kernels::Isa::amx && rank > 0 ? 1e-5 : 5e-7;
      for (bool backward : {false, true}) {
        INFO("backward " << backward << " m " << m << " out " << w.out << " in " << w.in);
        const Problem stored(w, backward, m, rank, (round & 1) != 0, (round & 2) != 0, round,
                             static_cast<Index>(round % 4));
        CHECK(stored.error(stored.run(w.quantised(), Compute::bf16), Compute::bf16) < close);
        const Problem problem(fine, backward, m, rank, (round & 1) != 0, (round & 2) != 0, round,
                              static_cast<Index>(round % 4));
        for (const FrozenWeight& form :
             {fine.dense(), fine.only(f32), fine.only(words), fine.only(both), all})
          CHECK(problem.error(problem.run(form, Compute::bf16), Compute::bf16) < close);
        CHECK(problem.error(problem.run(fine.only(words)), Compute::bf16) < close);
        CHECK(problem.error(problem.run(all), Compute::f32) < 5e-7);
        const auto results = with_threads([&] { return problem.run(all, Compute::bf16); });
        CHECK(results[0] == results[1]);
        CHECK(results[0] == results[2]);
      }
    }
    for (Index m : {1, 2, 7, 40}) {
      const Weight w(45, 67, 3);
      const kernels::PackedWeights words(w.dense(), true, Compute::bf16);
      for (bool backward : {false, true}) {
        Problem problem(w, backward, m, 3, true, false, 5, 1);
        CHECK(problem.error(problem.run(w.only(words)), Compute::bf16) <
              (isa >= kernels::Isa::amx ? 1e-5 : 5e-7));
        problem.a[0] = std::numeric_limits<float>::quiet_NaN();
        const auto result = problem.run(w.only(words));
        for (Index j = 0; j < problem.n; ++j) {
          CHECK(std::isnan(result[static_cast<std::size_t>(j)]));
          if (m > 1) CHECK(std::isfinite(result[static_cast<std::size_t>(problem.ldc + j)]));
        }
      }
    }
    kernels::set_isa(before);
  }
}

TEST_CASE("Split products are accurate to 1e-5, and f32 where there are no tiles") {
  std::mt19937 random(11);
  auto size = [&](unsigned limit) { return static_cast<Index>(1 + random() % limit); };
  const kernels::Isa before = kernels::active_isa();
  for (kernels::Isa isa : {kernels::Isa::baseline, kernels::Isa::amx, kernels::Isa::amx_emulated}) {
    if (!kernels::isa_supported(isa)) continue;
    kernels::set_isa(isa);
    INFO(kernels::isa_name(isa));
    CHECK(kernels::splits_f32() == (isa >= kernels::Isa::amx));
    for (unsigned round = 0; round < 12; ++round) {
      Weight w(size(round % 4 == 0 ? 20 : 150), size(round % 3 == 0 ? 500 : 140), round);
      if (round == 7) w = Weight(40, 2300, round);
      const Index rank = round % 3 == 0 ? 0 : size(20), m = size(round % 2 == 0 ? 40 : 90);
      Weight fine = w;  // its values take all bits of f32
      fine.values = normal_values<float>(w.out * w.in, round + 1000);
      const kernels::PackedWeights packed(fine.dense(), false, Compute::f32_split);
      for (bool backward : {false, true}) {
        INFO("backward " << backward << " m " << m << " out " << w.out << " in " << w.in);
        const Problem stored(w, backward, m, rank, (round & 1) != 0, (round & 2) != 0, round,
                             static_cast<Index>(round % 4));
        CHECK(stored.relative_error(stored.run(w.quantised(), Compute::f32_split)) < 1e-5);
        const Problem problem(fine, backward, m, rank, (round & 1) != 0, (round & 2) != 0, round,
                              static_cast<Index>(round % 4));
        for (const FrozenWeight& form : {fine.dense(), fine.only(packed)}) {
          const auto result = problem.run(form, Compute::f32_split);
          CHECK(problem.relative_error(result) < 1e-5);
          CHECK(problem.error(result) < 2e-5);
          if (isa == kernels::Isa::baseline) CHECK(result == problem.run(form));
        }
        const auto results =
            with_threads([&] { return problem.run(fine.dense(), Compute::f32_split); });
        CHECK(results[0] == results[1]);
        CHECK(results[0] == results[2]);
      }
    }
    // What is not finite stays in its row.
    const Weight w(45, 67, 3);
    for (bool backward : {false, true}) {
      Problem problem(w, backward, 30, 3, true, false, 5, 1);
      problem.a[0] = std::numeric_limits<float>::infinity();
      problem.a[static_cast<std::size_t>(problem.lda + 1)] =
          std::numeric_limits<float>::quiet_NaN();
      const auto result = problem.run(w.dense(), Compute::f32_split);
      for (Index j = 0; j < problem.n; ++j) {
        CHECK_FALSE(std::isfinite(result[static_cast<std::size_t>(j)]));
        CHECK(std::isnan(result[static_cast<std::size_t>(problem.ldc + j)]));
        CHECK(std::isfinite(result[static_cast<std::size_t>(2 * problem.ldc + j)]));
      }
    }
  }
  kernels::set_isa(before);
}
