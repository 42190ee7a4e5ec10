#include "graft/kernels/cross_entropy.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

using graft::Index;
using graft::kernels::cross_entropy_rows;
using graft::kernels::Isa;

namespace {

struct RestoreIsa {
  Isa before = graft::kernels::active_isa();
  ~RestoreIsa() { graft::kernels::set_isa(before); }
};

}  // namespace

TEST_CASE("cross-entropy in float agrees with double on every instruction set") {
  const RestoreIsa restore;
  std::mt19937 generator(1);
  std::normal_distribution<float> normal(0, 5);
  for (Index vocab : {1, 2, 15, 16, 17, 100, 1031}) {
    const Index rows = 5, ld = vocab + 3;
    std::vector<float> logits(static_cast<std::size_t>(rows * ld));
    for (float& x : logits) x = normal(generator);
    std::vector<std::int64_t> labels;
    for (Index r = 0; r < rows; ++r) labels.push_back(r == 2 ? -100 : static_cast<std::int64_t>(generator() % static_cast<unsigned>(vocab)));
    std::vector<double> exact(logits.begin(), logits.end()), exact_loss(5);
    std::vector<unsigned char> exact_correct(5);
    cross_entropy_rows(exact.data(), rows, vocab, ld, labels.data(), 0.25, true, exact_loss.data(), exact_correct.data());
    for (Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
      if (!graft::kernels::isa_supported(isa)) continue;
      graft::kernels::set_isa(isa);
      auto work = logits;
      std::vector<float> loss(5);
      std::vector<unsigned char> correct(5);
      cross_entropy_rows(work.data(), rows, vocab, ld, labels.data(), 0.25F, true, loss.data(), correct.data());
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
    }
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
