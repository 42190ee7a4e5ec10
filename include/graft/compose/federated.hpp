#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "graft/autograd/parameter.hpp"
#include "graft/base/rng.hpp"
#include "graft/compose/task_vectors.hpp"
#include "graft/compose/update_factors.hpp"

/// Adapters that many clients train together: only the tensors of the adapter travel.
///
/// A round: the server samples clients, each copies θ, trains and returns θ_k, the server averages
/// with the clients' shares of the data, p_k = n_k / Σ n. Sources: McMahan et al. 2017
/// (arXiv:1602.05629); Zhang et al. 2023 (FedIT, arXiv:2305.05644); Sun et al. 2022 (FedPEFT,
/// arXiv:2210.01708); Kuang et al. 2023 (FederatedScope-LLM, arXiv:2309.00363).
namespace graft::inline v0_1 {

/// p_k = n_k / Σ n. @throws ValueError without samples or for a negative number
inline std::vector<double> client_shares(std::span<const std::int64_t> samples) {
  double total = 0;
  for (const auto n : samples) {
    if (n < 0) throw ValueError(concat("client_shares: ", n, " samples"));
    total += static_cast<double>(n);
  }
  if (!(total > 0)) throw ValueError("client_shares: no client has samples");
  std::vector<double> shares;
  for (const auto n : samples) shares.push_back(static_cast<double>(n) / total);
  return shares;
}

/// Numbers of the clients of a round: round(fraction · clients) of them, at least one, in order.
inline std::vector<std::int64_t> sample_clients(Index clients, double fraction,
                                                TorchGenerator& generator) {
  if (clients < 1 || !(fraction > 0) || fraction > 1)
    throw ValueError(concat("sample_clients: a share of ", fraction, " of ", clients, " clients"));
  auto order = generator.randperm(clients);
  const auto count = std::nearbyint(fraction * static_cast<double>(clients));
  order.resize(static_cast<std::size_t>(std::max(1.0, count)));
  std::sort(order.begin(), order.end());
  return order;
}

/// Copies of the values of parameters: what travels in either direction.
template <std::floating_point T>
std::vector<BasicTensor<T>> copy_values(const std::vector<BasicParameter<T>>& parameters) {
  std::vector<BasicTensor<T>> list;
  for (const auto& p : parameters) list.push_back(p.value().clone());
  return list;
}

/// Σ p_k θ_k, tensor by tensor: `clients[k]` are the tensors of client k, all in one order.
template <std::floating_point T>
std::vector<BasicTensor<T>> federated_average(
    const std::vector<std::vector<BasicTensor<T>>>& clients, const std::vector<double>& shares) {
  if (clients.empty()) throw ValueError("federated_average: no clients");
  std::vector<BasicTensor<T>> result;
  for (std::size_t i = 0; i < clients[0].size(); ++i) {
    std::vector<BasicTensor<T>> tasks;
    for (const auto& client : clients) {
      if (client.size() != clients[0].size())
        throw ValueError(concat("federated_average: clients with ", clients[0].size(), " and ",
                                client.size(), " tensors"));
      tasks.push_back(client[i]);
    }
    result.push_back(weighted_sum(tasks, shares));
  }
  return result;
}

/// One step of a server's optimiser (`BasicOptimizer` over the same parameters) from the
/// pseudo-gradient θ_old − θ_average. SGD with a rate of one takes the average; momentum and
/// `BasicServerAdam` give FedAvgM, FedAdam, FedYogi, FedAdagrad (Reddi et al. 2021,
/// arXiv:2003.00295).
template <class Optimizer, std::floating_point T>
void server_step(Optimizer& optimizer, const std::vector<BasicParameter<T>>& parameters,
                 const std::vector<BasicTensor<T>>& average) {
  if (average.size() != parameters.size())
    throw ValueError(
        concat("server_step: ", average.size(), " tensors for ", parameters.size(), " parameters"));
  for (std::size_t i = 0; i < average.size(); ++i) {
    const auto& old = parameters[i].value();
    if (average[i].shape() != old.shape())
      throw ShapeError(
          concat("server_step: ", average[i].shape().text(), " for ", old.shape().text()));
    auto g = BasicTensor<T>::empty(old.shape());
    for (Index j = 0; j < g.size(); ++j) g[j] = old[j] - average[i][j];
    parameters[i].mutable_grad() = std::move(g);
  }
  optimizer.step();
  optimizer.zero_grad();
}

/// Adds μ (θ − θ_anchor), the gradient of μ/2 ‖θ − θ_anchor‖², to the gradients: FedProx with the
/// global θ and μ (Li et al. 2020, arXiv:1812.06127), the client of pFedMe with w and λ.
/// Parameters that are not trained stay without one.
template <std::floating_point T>
void add_proximal_gradient(const std::vector<BasicParameter<T>>& parameters,
                           const std::vector<BasicTensor<T>>& anchors, double mu) {
  if (anchors.size() != parameters.size())
    throw ValueError(concat("add_proximal_gradient: ", anchors.size(), " anchors for ",
                            parameters.size(), " parameters"));
  for (std::size_t i = 0; i < anchors.size(); ++i) {
    const auto& p = parameters[i];
    if (!p.trainable()) continue;
    if (anchors[i].shape() != p.shape())
      throw ShapeError(concat("add_proximal_gradient: anchor ", anchors[i].shape().text(), " for ",
                              p.shape().text()));
    auto g = p.grad() ? p.grad().clone() : BasicTensor<T>::zeros(p.shape());
    for (Index j = 0; j < g.size(); ++j)
      g[j] += static_cast<T>(
          mu * (static_cast<double>(p.value()[j]) - static_cast<double>(anchors[i][j])));
    p.mutable_grad() = std::move(g);
  }
}

/// pFedMe: w ← w − η λ (w − θ_k), the client's own copy of w after its personal θ_k was trained;
/// the copies are averaged then. Source: Dinh et al. 2020, arXiv:2006.08848, algorithm 1.
template <std::floating_point T>
BasicTensor<T> personal_step(const BasicTensor<T>& w, const BasicTensor<T>& personal, double eta,
                             double lambda = 15) {
  return weighted_sum<T>({w, personal}, {1 - eta * lambda, eta * lambda});
}

/// s Σ p_k B_k A_k − s B̄ Ā, [out, in]: what averaging A and B apart leaves out. Added to the frozen
/// weight, it makes the averaged adapter exact. The other exact ways: train B only, or
/// `concatenated_factors` of the clients (their ranks side by side, p_k in B), merged each round.
template <std::floating_point T>
BasicTensor<T> averaging_residual(const std::vector<UpdateFactors<T>>& clients,
                                  const std::vector<double>& shares, double scaling) {
  const auto exact = concatenated_factors(clients, shares);
  std::vector<BasicTensor<T>> a, b;
  for (const auto& f : clients) {
    a.push_back(f.a);
    b.push_back(f.b);
  }
  const UpdateFactors<T> mean{weighted_sum(a, shares), weighted_sum(b, shares)};
  return weighted_sum<T>({product_of(exact), product_of(mean)}, {scaling, -scaling});
}

/// A tensor as whole numbers of `bits` bits and one step s: q = round(x / s), s = max |x| /
/// (2^(bits − 1) − 1); q s is within s / 2 of x. Halves go to even.
struct QuantisedMessage {
  std::vector<std::int16_t> codes;
  double scale = 0;

  template <std::floating_point T>
  BasicTensor<T> values(const Shape& shape) const {
    std::vector<double> list;
    for (const auto q : codes) list.push_back(q * scale);
    return BasicTensor<T>::from(list, shape);
  }
};
/// @throws ValueError unless 2 ≤ bits ≤ 16 and all values are finite.
template <std::floating_point T>
QuantisedMessage quantise_message(const BasicTensor<T>& x, int bits = 8) {
  if (bits < 2 || bits > 16)
    throw ValueError(concat("quantise_message: ", bits, " bits, expected 2 to 16"));
  double largest = 0;
  for (const T v : x) {
    if (!std::isfinite(v)) throw ValueError("quantise_message: a value is not finite");
    largest = std::max(largest, std::abs(static_cast<double>(v)));
  }
  QuantisedMessage message;
  message.scale = largest / ((1 << (bits - 1)) - 1);
  for (const T v : x)
    message.codes.push_back(static_cast<std::int16_t>(
        message.scale > 0 ? std::nearbyint(static_cast<double>(v) / message.scale) : 0.0));
  return message;
}

/// Offsite tuning: numbers of the `kept` of `layers` layers that an emulator has, round(i (layers −
/// 1) / (kept − 1)), halves to even. Source: Xiao et al. 2023, arXiv:2302.04870.
/// @throws ValueError unless 1 ≤ kept ≤ layers.
inline std::vector<Index> emulator_layers(Index layers, Index kept) {
  if (kept < 1 || kept > layers)
    throw ValueError(concat("emulator_layers: ", kept, " of ", layers, " layers"));
  std::vector<Index> list{0};
  for (Index i = 1; i < kept; ++i)
    list.push_back(static_cast<Index>(
        std::nearbyint(static_cast<double>(i * (layers - 1)) / static_cast<double>(kept - 1))));
  return list;
}
/// Layers of the model that a client gets: `outer` at each end, which it trains, and an emulator of
/// the rest with `kept` layers (none given: half of them, rounded up).
inline std::vector<Index> offsite_layers(Index layers, Index outer = 2, Index kept = 0) {
  const Index middle = layers - 2 * outer;
  if (outer < 0 || middle < 1)
    throw ValueError(concat("offsite_layers: ", outer, " at each end of ", layers, " layers"));
  std::vector<Index> list(static_cast<std::size_t>(outer));
  std::iota(list.begin(), list.end(), Index{0});
  for (const Index i : emulator_layers(middle, kept > 0 ? kept : (middle + 1) / 2))
    list.push_back(outer + i);
  for (Index i = layers - outer; i < layers; ++i) list.push_back(i);
  return list;
}
/// The same as ranges [first, end), the form of LoRA's `layer_replication`.
inline std::vector<std::array<Index, 2>> layer_ranges(std::span<const Index> layers) {
  std::vector<std::array<Index, 2>> ranges;
  for (const Index l : layers) {
    if (!ranges.empty() && ranges.back()[1] == l)
      ++ranges.back()[1];
    else
      ranges.push_back({l, l + 1});
  }
  return ranges;
}

}  // namespace graft::inline v0_1
