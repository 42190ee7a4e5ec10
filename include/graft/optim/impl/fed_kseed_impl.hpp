#pragma once

#include <cmath>
#include <numeric>

#include "graft/optim/fed_kseed.hpp"

namespace graft::inline v0_1 {

GRAFT_KERNEL void accumulate_records(std::vector<double>& accumulator,
                                     const std::vector<std::vector<FedKSeedRecord>>& clients,
                                     std::span<const double> shares) {
  if (clients.size() != shares.size())
    throw ValueError(
        concat("FedKSeed: ", shares.size(), " shares for ", clients.size(), " clients"));
  for (std::size_t k = 0; k < clients.size(); ++k)
    for (const auto& [candidate, gradient] : clients[k])
      accumulator.at(static_cast<std::size_t>(candidate)) += shares[k] * gradient;
}

GRAFT_KERNEL std::vector<double> mean_magnitudes(
    const std::vector<std::vector<FedKSeedRecord>>& clients, Index num_seeds) {
  std::vector<double> sum(static_cast<std::size_t>(num_seeds), 0), count(sum.size(), 0);
  for (const auto& records : clients)
    for (const auto& [candidate, gradient] : records) {
      sum.at(static_cast<std::size_t>(candidate)) += std::abs(gradient);
      ++count[static_cast<std::size_t>(candidate)];
    }
  for (std::size_t j = 0; j < sum.size(); ++j) sum[j] /= std::max(1.0, count[j]);
  return sum;
}

GRAFT_KERNEL std::vector<double> candidate_probabilities(std::span<const double> magnitudes) {
  if (magnitudes.empty()) return {};
  const auto [low, high] = std::minmax_element(magnitudes.begin(), magnitudes.end());
  const double range = *high - *low;
  std::vector<double> p;
  for (const double m : magnitudes) p.push_back(range > 0 ? std::exp((m - *low) / range) : 1.0);
  const double total = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& v : p) v /= total;
  return p;
}

}  // namespace graft::inline v0_1
