#include "graft/optim/mezo.hpp"

#include <catch2/catch.hpp>

namespace {

using graft::Index;

const std::vector<float> kTarget{0.5f, -1, 2, 0.25f, 1};
graft::Parameter start() {
  return graft::Parameter(graft::Tensor::from(std::vector<float>{1, 1, -0.3f, 0, 0.7f}, {5}));
}
double loss(const graft::Parameter& p, double weight) {
  double total = 0;
  for (Index i = 0; i < p.size(); ++i) {
    const double d = p.value()[i] - kTarget[static_cast<std::size_t>(i)];
    total += weight * d * d;
  }
  return total;
}

}  // namespace

TEST_CASE("MeZO: replicas keep the same bits, and so does who joins with the log of bytes") {
  for (const char* code : {"linear", "logarithmic"}) {
    const graft::MezoConfig config{
        .eps = 1e-2, .learning_rate = 0.05, .code = code, .code_scale = code[1] == 'i' ? 0.1 : 12};
    std::vector<graft::Parameter> weights{start(), start(), start()};
    std::vector<graft::Mezo> machines;
    for (const auto& w : weights) machines.emplace_back(std::vector{w}, config);
    std::vector<std::vector<graft::MezoRecord>> log;
    const double before = loss(weights[0], 1);
    for (std::uint64_t t = 0; t < 60; ++t) {
      auto& records = log.emplace_back();
      for (std::uint64_t k = 0; k < machines.size(); ++k) {
        const auto old = weights[k].value().clone();
        const auto seed = graft::Mezo::seed(k, t);
        const double g = machines[k].measure(
            [&] { return loss(weights[k], 0.5 + static_cast<double>(k) / 4); }, seed);
        CHECK(std::equal(old.begin(), old.end(), weights[k].value().begin()));
        records.push_back(machines[k].record(seed, g));
      }
      for (const auto& m : machines) m.apply(records);
    }
    CHECK(loss(weights[0], 1) < 0.2 * before);
    const auto late = start();
    const graft::Mezo joined({late}, config);
    for (const auto& records : log) {
      std::vector<graft::MezoRecord> received;
      for (const auto& r : records) received.push_back(joined.received(r.seed, r.byte));
      joined.apply(received);
    }
    for (const auto& w : {weights[1], weights[2], late})
      CHECK(std::equal(w.value().begin(), w.value().end(), weights[0].value().begin()));
  }
}

TEST_CASE("MeZO: the mean of g z is the gradient; one machine without code steps along g z") {
  const graft::BasicParameter<double> p(
      graft::BasicTensor<double>::from(std::vector<double>{1, -2}, {2}));
  const auto quadratic = [&] { return p.value()[0] * p.value()[0] + 3 * p.value()[1]; };
  const graft::BasicMezo<double> mezo({p}, {.learning_rate = 0.1, .code = "none"});
  double a = 0, b = 0;
  for (std::uint64_t s = 0; s < 20000; ++s) {
    const double g = mezo.measure(quadratic, s);
    const auto z = graft::normal_direction(s, 2);
    a += g * z[0] / 20000;
    b += g * z[1] / 20000;
  }
  CHECK(a == Approx(2).margin(0.15));
  CHECK(b == Approx(3).margin(0.15));
  const double g = mezo.step(quadratic, 7);
  CHECK(p.value()[1] == Approx(-2 - 0.1 * g * graft::normal_direction(7, 2)[1]));
}

TEST_CASE("MeZO: bytes") {
  const graft::ByteCode linear{false, 0.5}, logarithmic{true, 4};
  CHECK(linear.encode(0.75) == 2);  // halves to even
  CHECK(linear.encode(1.25) == 2);
  CHECK(linear.encode(-1e9) == -127);
  CHECK(linear.decode(-3) == -1.5);
  CHECK(logarithmic.encode(100) == 127);
  CHECK(logarithmic.encode(-2) == -119);
  CHECK(logarithmic.decode(-119) == -2);
  CHECK(logarithmic.encode(1e-30) == 0);
  CHECK(logarithmic.encode(0) == 0);
  CHECK(logarithmic.decode(0) == 0);
  CHECK_THROWS_AS(linear.encode(NAN), graft::ValueError);
  CHECK_THROWS_WITH(graft::Mezo({start()}, {.code = "byte"}), Catch::Contains("logarithmic"));
  CHECK_THROWS_AS(graft::Mezo({start()}, {.eps = 0}), graft::ValueError);
}
