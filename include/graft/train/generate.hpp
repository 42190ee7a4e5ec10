#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <random>
#include <vector>

#include "graft/models/causal_model.hpp"

namespace graft::train {

/// How the next token is chosen. temperature 0: the likeliest one.
struct GenerateConfig {
  Index max_tokens = 64;
  double temperature = 0.8;
  Index top_k = 0;   ///< > 0: only the k likeliest
  double top_p = 1;  ///< only the smallest set of likeliest tokens that holds this share
  std::uint64_t seed = 0;
  std::vector<std::int32_t> end_ids;
};

/// Draws one token from logits; `uniform` is in [0, 1).
inline std::int32_t choose_token(std::span<const float> logits, const GenerateConfig& config,
                                 double uniform) {
  const auto best = std::max_element(logits.begin(), logits.end());
  if (!(config.temperature > 0)) return static_cast<std::int32_t>(best - logits.begin());
  std::vector<std::int32_t> order(logits.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int32_t>(i);
  const auto larger = [&](std::int32_t a, std::int32_t b) {
    const float x = logits[static_cast<std::size_t>(a)], y = logits[static_cast<std::size_t>(b)];
    return x != y ? x > y : a < b;
  };
  std::size_t count = order.size();
  if (config.top_k > 0) count = std::min(count, static_cast<std::size_t>(config.top_k));
  if (count < order.size() || config.top_p < 1) {
    std::partial_sort(order.begin(),
                      order.begin() + static_cast<Index>(config.top_p < 1 ? order.size() : count),
                      order.end(), larger);
  }
  std::vector<double> weights(count);
  double total = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const double difference = static_cast<double>(logits[static_cast<std::size_t>(order[i])]) -
                              static_cast<double>(*best);
    total += weights[i] = std::exp(difference / config.temperature);
  }
  if (config.top_p < 1) {
    double sum = 0;
    for (std::size_t i = 0; i < count; ++i) {
      sum += weights[i];
      if (sum >= config.top_p * total) {
        count = i + 1;
        total = sum;
        break;
      }
    }
  }
  double left = uniform * total;
  for (std::size_t i = 0; i < count; ++i) {
    left -= weights[i];
    if (left < 0) return order[i];
  }
  return order[count - 1];
}

/// Continues a prompt token by token with a cache of keys and values. `on_token` may return false
/// to stop. Ends at an end token, which is not reported. @throws ValueError for an empty prompt.
inline std::vector<std::int32_t> generate(const models::CausalModel& model,
                                          const std::vector<std::int32_t>& prompt,
                                          const GenerateConfig& config,
                                          const std::function<bool(std::int32_t)>& on_token = {}) {
  if (prompt.empty()) throw ValueError("generate: an empty prompt");
  if (!(config.top_p > 0 && config.top_p <= 1))
    throw ValueError(concat("generate: top_p ", config.top_p, ", expected (0, 1]"));
  std::mt19937_64 generator(config.seed);
  KvCache cache;
  std::vector<std::int32_t> result;
  models::Batch batch;
  batch.batch = 1;
  batch.ids = prompt;
  batch.seq_len = static_cast<Index>(prompt.size());
  for (Index i = 0; i < config.max_tokens; ++i) {
    if (model.max_positions > 0 && cache.length() + batch.seq_len > model.max_positions) break;
    Tape tape({.gradients = false, .training = false});
    const Tensor logits = model.next_logits(tape, batch, cache);
    const double uniform = static_cast<double>(generator() >> 11) * 0x1p-53;
    const std::int32_t token = choose_token(logits.span(), config, uniform);
    if (std::find(config.end_ids.begin(), config.end_ids.end(), token) != config.end_ids.end())
      break;
    result.push_back(token);
    if (on_token && !on_token(token)) break;
    batch.ids = {token};
    batch.seq_len = 1;
  }
  return result;
}

}  // namespace graft::train
