#include "graft/kernels/cross_entropy.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "kernels/support.hpp"

using graft::Index;
using graft::kernels::cross_entropy_rows;
using namespace kernel_tests;

TEST_CASE("cross-entropy in float agrees with double on every instruction set") {
  std::mt19937 generator(1);
  std::normal_distribution<float> normal(0, 5);
  for (Index vocab : {1, 2, 15, 16, 17, 100, 1031, 5000}) {
    const Index rows = 5, ld = vocab + 3;
    std::vector<float> logits(static_cast<std::size_t>(rows * ld));
    for (float& x : logits) x = normal(generator);
    std::vector<std::int64_t> labels;
    for (Index r = 0; r < rows; ++r)
      labels.push_back(
          r == 2 ? -100 : static_cast<std::int64_t>(generator() % static_cast<unsigned>(vocab)));
    std::vector<double> exact(logits.begin(), logits.end()), exact_loss(5);
    std::vector<unsigned char> exact_correct(5);
    cross_entropy_rows(exact.data(), rows, vocab, ld, labels.data(), 0.25, true, exact_loss.data(),
                       exact_correct.data());
    for_each_isa([&](const char* isa) {
      CAPTURE(isa, vocab);
      auto work = logits;
      std::vector<float> loss(5);
      std::vector<unsigned char> correct(5);
      cross_entropy_rows(work.data(), rows, vocab, ld, labels.data(), 0.25F, true, loss.data(),
                         correct.data());
      CHECK(correct == exact_correct);
      for (std::size_t r = 0; r < 5; ++r) {
        CHECK(loss[r] == Approx(exact_loss[r]).epsilon(1e-5).margin(1e-6));
        for (Index j = 0; j < vocab; ++j) {
          const auto at = static_cast<std::size_t>(static_cast<Index>(r) * ld + j);
          CHECK(work[at] == Approx(exact[at]).epsilon(1e-5).margin(1e-7));
        }
        for (Index j = vocab; j < ld; ++j) {
          const auto at = static_cast<std::size_t>(static_cast<Index>(r) * ld + j);
          CHECK(work[at] == logits[at]);
        }
      }
    });
  }
}

TEST_CASE("without a gradient the logits stay as they are") {
  std::vector<double> logits{1, 2, 3, 4};
  const auto before = logits;
  const std::vector<std::int64_t> labels{0, 1};
  std::vector<double> loss(2);
  cross_entropy_rows(logits.data(), 2, 2, 2, labels.data(), 1.0, false, loss.data(), nullptr);
  CHECK(logits == before);
  CHECK(loss[0] == Approx(std::log(1 + std::exp(1.0))));
}

TEST_CASE("only the first of several largest logits counts as the prediction") {
  std::vector<float> logits{5, 5, 1};
  std::vector<float> loss(1);
  unsigned char correct = 7;
  std::int64_t label = 1;
  cross_entropy_rows(logits.data(), 1, 3, 3, &label, 1.0F, false, loss.data(), &correct);
  CHECK(correct == 0);
  label = 0;
  cross_entropy_rows(logits.data(), 1, 3, 3, &label, 1.0F, false, loss.data(), &correct);
  CHECK(correct == 1);
}

TEST_CASE("huge logits neither overflow nor lose the loss") {
  std::vector<float> logits{1e30F, -1e30F, 0};
  std::vector<float> loss(1);
  const std::int64_t label = 0;
  cross_entropy_rows(logits.data(), 1, 3, 3, &label, 1.0F, true, loss.data(), nullptr);
  CHECK(loss[0] == 0);
  CHECK(logits[1] == 0);
  CHECK(std::abs(logits[0]) < 1e-6F);
}

TEST_CASE("the loss without a gradient is the same as with one") {
  const auto logits = normal_values<float>(6 * 3001, 3, 4);
  const std::vector<std::int64_t> labels{0, 3000, 1500, -100, 7, 2999};
  for_each_isa([&](const char* isa) {
    CAPTURE(isa);
    auto work = logits, untouched = logits;
    std::vector<float> with(6), without(6);
    std::vector<unsigned char> correct(6), again(6);
    cross_entropy_rows(work.data(), 6, 3001, 3001, labels.data(), 1.0F, true, with.data(),
                       correct.data());
    cross_entropy_rows(untouched.data(), 6, 3001, 3001, labels.data(), 1.0F, false, without.data(),
                       again.data());
    for (std::size_t r = 0; r < 6; ++r) CHECK(with[r] == Approx(without[r]).epsilon(1e-6));
    CHECK(correct == again);
    CHECK(untouched == logits);
  });
}

TEST_CASE("gradients of the cross-entropy agree with central differences") {
  auto logits = normal_values<double>(3 * 17, 4, 2);
  const std::vector<std::int64_t> labels{4, -100, 16};
  std::vector<double> loss(3), gradient = logits;
  cross_entropy_rows(gradient.data(), 3, 17, 17, labels.data(), 0.5, true, loss.data(), nullptr);
  const auto total = [&] {
    cross_entropy_rows(logits.data(), 3, 17, 17, labels.data(), 0.5, false, loss.data(), nullptr);
    return 0.5 * (loss[0] + loss[1] + loss[2]);
  };
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const double old = logits[i];
    logits[i] = old + 1e-6;
    const double up = total();
    logits[i] = old - 1e-6;
    const double down = total();
    logits[i] = old;
    CHECK(gradient[i] == Approx((up - down) / 2e-6).margin(1e-8));
  }
}

TEST_CASE("logits that rise over the row, fall or are minus infinity keep their precision") {
  // The running maximum changes in every block, or never.
  const float inf = std::numeric_limits<float>::infinity();
  for (int form = 0; form < 3; ++form) {
    std::vector<float> logits(5000);
    for (std::size_t i = 0; i < logits.size(); ++i) {
      const float t = static_cast<float>(i) / 50.0F;
      logits[i] = form == 0 ? t : form == 1 ? -t : i < 2500 ? -inf : 0.01F * t;
    }
    auto exact = widen(logits);
    double exact_loss = 0;
    const std::int64_t label = 2600;
    cross_entropy_rows(exact.data(), 1, 5000, 5000, &label, 1.0, true, &exact_loss, nullptr);
    for_each_isa([&](const char* isa) {
      CAPTURE(isa, form);
      auto work = logits;
      float loss = 0;
      cross_entropy_rows(work.data(), 1, 5000, 5000, &label, 1.0F, true, &loss, nullptr);
      CHECK(static_cast<double>(loss) == Approx(exact_loss).epsilon(1e-6));
      double worst = 0;
      for (std::size_t i = 0; i < work.size(); ++i)
        worst = std::max(worst, std::abs(static_cast<double>(work[i]) - exact[i]));
      CHECK(worst < 1e-7);
    });
  }
}

TEST_CASE("cross-entropy gives the same bits for any number of threads") {
  const auto logits = normal_values<float>(64 * 2000, 5, 3);
  const std::vector<std::int64_t> labels(64, 1234);
  const auto results = with_threads([&] {
    auto work = logits;
    std::vector<float> loss(64);
    cross_entropy_rows(work.data(), 64, 2000, 2000, labels.data(), 1.0F, true, loss.data(),
                       nullptr);
    work.insert(work.end(), loss.begin(), loss.end());
    return work;
  });
  CHECK(results[0] == results[1]);
  CHECK(results[0] == results[2]);
}
