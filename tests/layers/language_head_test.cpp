#include "graft/layers/language_head.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"
#include "graft/adapters/low_rank/lora.hpp"
#include "graft/adapters/part.hpp"

using graft::BasicTape;
using graft::Index;

namespace {

constexpr Index kRows = 13, kDim = 6, kVocabulary = 17;

std::vector<std::int64_t> labels() {
  std::vector<std::int64_t> list;
  for (Index i = 0; i < kRows; ++i) list.push_back(i % 4 == 1 ? -100 : (5 * i) % kVocabulary);
  return list;
}
graft::BasicLinearSite<double> head() {
  return {"lm_head", checks::random_layer<double>(kVocabulary, kDim, 1, false)};
}
void adapt(graft::BasicLinearSite<double>& site) {
  const auto layer = checks::random_layer<double>(kVocabulary, kDim, 1, false);
  auto lora = checks::make<graft::BasicLoRA<double>>({.rank = 3}, checks::site_of(layer));
  checks::randomize(lora);
  site.adapters().push_back({"a", graft::linear_part(lora)});
  site.activate({"a"});
}

}  // namespace

TEST_CASE("The loss in chunks is the cross-entropy of the whole matrix of logits") {
  const Index chunk = GENERATE(1, 4, 128);
  const bool adapted = GENERATE(false, true);
  auto site = head();
  if (adapted) adapt(site);
  const graft::BasicParameter<double> hidden(checks::random_tensor<double>({kRows, kDim}, 3));
  const auto label = labels();
  BasicTape<double> tape, whole;
  const auto loss = linear_cross_entropy(tape.parameter(hidden), site,
                                         std::span<const std::int64_t>(label), chunk);
  hidden.zero_grad();
  tape.backward(loss);
  const auto gradient = hidden.grad().clone();
  hidden.zero_grad();
  const auto expected = cross_entropy(site(whole.parameter(hidden)), label);
  whole.backward(expected);
  CHECK(loss.item() == Approx(expected.item()).epsilon(1e-12));
  CHECK(checks::relative_error(gradient, hidden.grad()) < 1e-12);
}

TEST_CASE("Gradients of the chunked loss agree with differences") {
  const bool adapted = GENERATE(false, true);
  auto site = head();
  if (adapted) adapt(site);
  const graft::BasicParameter<double> hidden(checks::random_tensor<double>({kRows, kDim}, 3));
  const auto label = labels();
  const auto loss = [&](BasicTape<double>& tape) {
    return scale(linear_cross_entropy(tape.parameter(hidden), site,
                                      std::span<const std::int64_t>(label), Index{5}),
                 3);
  };
  CHECK(graft::gradient_check(loss, {hidden}).relative_error < 1e-7);
}

TEST_CASE("Logits with a cap have the loss of cap times tanh") {
  const bool adapted = GENERATE(false, true);
  auto site = head();
  if (adapted) adapt(site);
  const graft::BasicParameter<double> hidden(checks::random_tensor<double>({kRows, kDim}, 3));
  const auto label = labels();
  const auto chunked = [&](BasicTape<double>& tape, std::vector<double>* losses) {
    return linear_cross_entropy(tape.parameter(hidden), site, std::span<const std::int64_t>(label),
                                Index{5}, static_cast<std::vector<unsigned char>*>(nullptr), losses,
                                {}, 0.7);
  };
  BasicTape<double> tape;
  const auto logits = site(tape.parameter(hidden));
  const auto expected = cross_entropy(scale(tanh(scale(logits, 1 / 0.7)), 0.7), label).item();
  CHECK(chunked(tape, nullptr).item() == Approx(expected).epsilon(1e-12));
  std::vector<double> losses;
  CHECK(chunked(tape, &losses).item() == Approx(expected).epsilon(1e-12));
  CHECK(expected != Approx(cross_entropy(logits, label).item()));
  const auto loss = [&](BasicTape<double>& t) { return scale(chunked(t, nullptr), 3); };
  CHECK(graft::gradient_check(loss, {hidden}).relative_error < 1e-7);
}

TEST_CASE("Losses and right guesses are told for each counted row, in order") {
  const auto site = head();
  const auto hidden = checks::random_tensor<double>({kRows, kDim}, 3);
  const auto label = labels();
  BasicTape<double> tape({.gradients = false});
  std::vector<unsigned char> right;
  std::vector<double> losses;
  const double mean =
      linear_cross_entropy(tape.constant(hidden), site, std::span<const std::int64_t>(label),
                           Index{4}, &right, &losses)
          .item();
  const auto logits = site(tape.constant(hidden)).value();
  std::size_t at = 0;
  double total = 0;
  for (Index i = 0; i < kRows; ++i) {
    if (label[static_cast<std::size_t>(i)] < 0) continue;
    Index best = 0;
    double sum = 0;
    for (Index v = 0; v < kVocabulary; ++v) {
      if (logits(i, v) > logits(i, best)) best = v;
      sum += std::exp(logits(i, v));
    }
    const double loss = std::log(sum) - logits(i, label[static_cast<std::size_t>(i)]);
    CHECK(losses.at(at) == Approx(loss).epsilon(1e-10));
    CHECK((right.at(at) != 0) == (best == label[static_cast<std::size_t>(i)]));
    total += loss;
    ++at;
  }
  CHECK(at == losses.size());
  CHECK(mean == Approx(total / static_cast<double>(at)));
}

TEST_CASE("Labels outside of the vocabulary and lists of another length are refused") {
  const auto site = head();
  BasicTape<double> tape;
  const auto hidden = tape.leaf(checks::random_tensor<double>({2, kDim}, 3));
  const std::vector<std::int64_t> high = {0, kVocabulary}, longer = {0, 1, 2}, none = {-100, -100};
  CHECK_THROWS_AS(linear_cross_entropy(hidden, site, std::span<const std::int64_t>(high)),
                  graft::ValueError);
  CHECK_THROWS_AS(linear_cross_entropy(hidden, site, std::span<const std::int64_t>(longer)),
                  graft::ShapeError);
  CHECK(linear_cross_entropy(hidden, site, std::span<const std::int64_t>(none)).item() == 0);
}
