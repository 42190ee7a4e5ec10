#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <random>
#include <span>
#include <vector>

#include "graft/models/causal_model.hpp"

namespace graft::inline v0_1 {

/// How the next token is chosen: from softmax(logits / temperature), cut to the top_k likeliest,
/// and of these to the smallest set of likeliest ones that holds the share top_p (Holtzman et al.
/// 2020, arXiv:1904.09751).
struct GenerateConfig {
  Index max_tokens = 64;
  double temperature = 0.8;  ///< 0: always the likeliest token
  Index top_k = 0;           ///< 0: no limit
  double top_p = 1;
  std::uint64_t seed = 0;
  std::vector<std::int32_t> end_ids = {};  ///< tokens that end the text

  /// @throws ValueError for a setting out of range.
  void validate() const {
    if (max_tokens < 0 || top_k < 0 || !(temperature >= 0) || !(top_p > 0 && top_p <= 1))
      throw ValueError(concat("generate: ", max_tokens, " tokens, temperature ", temperature,
                              ", top_k ", top_k, ", top_p ", top_p,
                              ", expected top_p in (0, 1] and nothing negative"));
  }
};

/// The first of the largest logits. Several maxima run side by side: one alone would take a tenth
/// of the time of a small model's token.
template <std::floating_point T>
std::int32_t likeliest_token(std::span<const T> logits) {
  constexpr std::size_t kLanes = 16;
  std::array<T, kLanes> top;
  top.fill(-std::numeric_limits<T>::infinity());
  std::size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes)
    for (std::size_t l = 0; l < kLanes; ++l) {
      const T value = logits[i + l];
      top[l] = value > top[l] ? value : top[l];
    }
  T best = *std::max_element(top.begin(), top.end());
  for (; i < logits.size(); ++i) best = std::max(best, logits[i]);
  const auto found = std::find(logits.begin(), logits.end(), best);
  return found == logits.end() ? 0 : static_cast<std::int32_t>(found - logits.begin());
}

/// The token that a uniform number in [0, 1) picks from logits; likelier tokens come first, equal
/// ones by number.
template <std::floating_point T>
std::int32_t choose_token(std::span<const T> logits, const GenerateConfig& config, double uniform) {
  const std::int32_t likeliest = likeliest_token(logits);
  if (config.temperature == 0) return likeliest;
  const T best = logits[static_cast<std::size_t>(likeliest)];
  std::vector<std::int32_t> order(logits.size());
  std::vector<double> weights(logits.size());
  for (std::size_t i = 0; i < order.size(); ++i) {
    order[i] = static_cast<std::int32_t>(i);
    weights[i] =
        std::exp((static_cast<double>(logits[i]) - static_cast<double>(best)) / config.temperature);
  }
  const auto weight = [&](std::size_t place) {
    return weights[static_cast<std::size_t>(order[place])];
  };
  const auto likelier = [&](std::int32_t a, std::int32_t b) {
    const T x = logits[static_cast<std::size_t>(a)], y = logits[static_cast<std::size_t>(b)];
    return x != y ? x > y : a < b;
  };
  // Sorting a whole vocabulary would cost more than the draw: ever larger beginnings are sorted
  // until the draw falls into one.
  std::size_t sorted = 0;
  const auto sort_to = [&](std::size_t count) {
    count = std::min(count, order.size());
    if (count > sorted) {
      std::partial_sort(order.begin() + static_cast<Index>(sorted),
                        order.begin() + static_cast<Index>(count), order.end(), likelier);
      sorted = count;
    }
  };
  std::size_t count = order.size();
  double total = 0;
  if (config.top_k > 0 && static_cast<std::size_t>(config.top_k) < count) {
    count = static_cast<std::size_t>(config.top_k);
    sort_to(count);
    for (std::size_t i = 0; i < count; ++i) total += weight(i);
  } else {
    for (const double w : weights) total += w;
  }
  if (config.top_p < 1) {
    double sum = 0;
    for (std::size_t i = 0; i < count; ++i) {
      if (i >= sorted) sort_to(4 * i + 64);
      sum += weight(i);
      if (sum >= config.top_p * total) {
        count = i + 1;
        total = sum;
        break;
      }
    }
  }
  double left = uniform * total;
  for (std::size_t i = 0; i < count; ++i) {
    if (i >= sorted) sort_to(4 * i + 64);
    left -= weight(i);
    if (left < 0) return order[i];
  }
  return order[count - 1];
}

/// Continues a prompt token by token with a cache of keys and values, under the adapters that are
/// active. Stops at an end token, which is not part of the result, at max_tokens, at the model's
/// longest position, or when `on_token` gives false.
/// @throws ValueError for an empty prompt, one longer than the model's positions, or settings out
/// of range
template <std::floating_point T>
std::vector<std::int32_t> generate(const models::BasicCausalModel<T>& model,
                                   const std::vector<std::int32_t>& prompt,
                                   const GenerateConfig& config,
                                   const std::function<bool(std::int32_t)>& on_token = {}) {
  config.validate();
  if (prompt.empty()) throw ValueError("generate: an empty prompt");
  const Index used = static_cast<Index>(prompt.size()) + model.virtual_positions();
  if (model.max_positions > 0 && used > model.max_positions)
    throw ValueError(concat("generate: a prompt of ", used, " tokens; the model has ",
                            model.max_positions, " positions"));
  std::mt19937_64 generator(config.seed);
  BasicKvCache<T> cache;
  std::vector<std::int32_t> result;
  models::BasicBatch<T> batch;
  batch.batch = 1;
  batch.ids = prompt;
  batch.seq_len = static_cast<Index>(prompt.size());
  for (Index i = 0; i < config.max_tokens; ++i) {
    if (model.max_positions > 0 && used + i > model.max_positions) break;
    BasicTape<T> tape({.gradients = false, .training = false});
    const auto logits = model.next_logits(tape, batch, cache);
    const double uniform = static_cast<double>(generator() >> 11) * 0x1p-53;
    const std::int32_t token = choose_token(std::span<const T>(logits.span()), config, uniform);
    if (std::find(config.end_ids.begin(), config.end_ids.end(), token) != config.end_ids.end())
      break;
    result.push_back(token);
    if (on_token && !on_token(token)) break;
    batch.ids = {token};
    batch.seq_len = 1;
  }
  return result;
}

}  // namespace graft::inline v0_1
