#include "graft/train/generate.hpp"

#include <catch2/catch.hpp>
#include <map>

#include "train/tiny_model.hpp"

using graft::choose_token;
using graft::GenerateConfig;
using graft::Index;

namespace {

std::int32_t choose(const std::vector<float>& logits, const GenerateConfig& config,
                    double uniform) {
  return choose_token(std::span<const float>(logits), config, uniform);
}

/// Share of each token over evenly spread draws.
std::map<std::int32_t, double> shares(const std::vector<float>& logits,
                                      const GenerateConfig& config) {
  std::map<std::int32_t, double> result;
  const int draws = 20000;
  for (int i = 0; i < draws; ++i) result[choose(logits, config, (i + 0.5) / draws)] += 1.0 / draws;
  return result;
}

}  // namespace

TEST_CASE("temperature zero takes the likeliest token, the first of equals") {
  CHECK(choose({0, 3, 3, 1}, {.temperature = 0}, 0.99) == 1);
}

TEST_CASE("draws follow the softmax at the temperature") {
  const std::vector<float> logits{1, 2, 0, -1};
  const auto result = shares(logits, {.temperature = 2});
  double total = 0;
  for (const float l : logits) total += std::exp(static_cast<double>(l) / 2);
  for (std::size_t i = 0; i < logits.size(); ++i)
    CHECK(result.at(static_cast<std::int32_t>(i)) ==
          Approx(std::exp(static_cast<double>(logits[i]) / 2) / total).margin(1e-3));
}

TEST_CASE("top-k and top-p cut the tail and keep the proportions") {
  const std::vector<float> logits{std::log(0.1F), std::log(0.4F), std::log(0.2F), std::log(0.3F)};
  auto two = shares(logits, {.temperature = 1, .top_k = 2});
  REQUIRE(two.size() == 2);
  CHECK(two.at(1) == Approx(4.0 / 7).margin(1e-3));
  auto three = shares(logits, {.temperature = 1, .top_p = 0.75});
  REQUIRE(three.size() == 3);  // 0.4 + 0.3 fall short of 0.75
  CHECK(three.at(2) == Approx(2.0 / 9).margin(1e-3));
  CHECK(shares(logits, {.temperature = 1, .top_p = 0.7}).size() == 2);
  CHECK(shares(logits, {.temperature = 1, .top_k = 3, .top_p = 0.5}).size() == 2);
}

TEST_CASE("sorting in portions picks what sorting everything picks") {
  std::vector<float> logits;
  for (int i = 0; i < 1500; ++i) logits.push_back(static_cast<float>((i * 577) % 1500) * 0.001F);
  std::vector<std::int32_t> order(1500);
  for (int i = 0; i < 1500; ++i) order[static_cast<std::size_t>((i * 577) % 1500)] = i;
  std::reverse(order.begin(), order.end());
  std::vector<double> cumulative;
  double total = 0;
  for (const auto id : order)
    cumulative.push_back(total +=
                         std::exp(static_cast<double>(logits[static_cast<std::size_t>(id)])));
  for (const double uniform : {0.0, 0.01, 0.2, 0.5, 0.77, 0.9999}) {
    const auto place = std::upper_bound(cumulative.begin(), cumulative.end(), uniform * total) -
                       cumulative.begin();
    CHECK(choose(logits, {.temperature = 1}, uniform) == order[static_cast<std::size_t>(place)]);
  }
}

TEST_CASE("generation with a cache gives what a whole forward pass for each token gives") {
  tiny::Setup setup;
  for (const auto& p : setup.adapters.parameters())
    for (float& v : p.value()) v += 0.1F;
  const std::vector<std::int32_t> prompt{3, 16, 18};
  const auto ids = graft::generate(setup.model, prompt, {.max_tokens = 10, .temperature = 0});
  REQUIRE(ids.size() == 10);
  auto all = prompt;
  for (const auto id : ids) {
    graft::models::Batch batch;
    batch.batch = 1;
    batch.seq_len = static_cast<Index>(all.size());
    batch.ids = all;
    graft::Tape tape({.gradients = false, .training = false});
    const auto logits = setup.model.logits(tape, batch).value();
    const float* last = logits.data() + (logits.size() - logits.cols());
    CHECK(std::max_element(last, last + logits.cols()) - last == id);
    all.push_back(id);
  }
}

TEST_CASE("a seed repeats a text, another one changes it") {
  tiny::Setup setup;
  const auto text = [&](std::uint64_t seed) {
    return graft::generate(setup.model, {1, 2}, {.max_tokens = 20, .temperature = 1, .seed = seed});
  };
  CHECK(text(1) == text(1));
  CHECK(text(1) != text(2));
}

TEST_CASE(
    "generation ends at an end token, at the longest position, when told to, and refuses bad "
    "settings") {
  tiny::Setup setup;
  const auto whole = graft::generate(setup.model, {1, 2}, {.max_tokens = 5, .temperature = 0});
  const auto ended = graft::generate(setup.model, {1, 2},
                                     {.max_tokens = 5, .temperature = 0, .end_ids = {whole[2]}});
  CHECK(ended.size() <= 2);
  CHECK(graft::generate(setup.model, {1, 2}, {.max_tokens = 100}).size() ==
        47);  // 48 positions, the last token needs none
  int calls = 0;
  CHECK(graft::generate(setup.model, {1, 2}, {.max_tokens = 9}, [&](std::int32_t) {
          return ++calls < 4;
        }).size() == 4);
  CHECK_THROWS_AS(graft::generate(setup.model, {}, {}), graft::ValueError);
  CHECK_THROWS_AS(graft::generate(setup.model, std::vector<std::int32_t>(49, 1), {}),
                  graft::ValueError);
  CHECK_THROWS_AS(graft::generate(setup.model, {1}, {.top_p = 0}), graft::ValueError);
}
