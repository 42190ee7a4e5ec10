#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/adapters/adapter.hpp"
#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/root.hpp"
#include "graft/autograd/ops/sparse_matmul.hpp"
#include "graft/tensor/decompositions.hpp"

namespace graft::inline v0_1 {

/// Configuration of FRoD, fields as PEFT's FrodConfig.
struct FRoDConfig {
  double sparse_rate = 0.01;              ///< trained elements off the diagonal, as a share of in²
  double regularization_alpha = 1e-3;     ///< added to the Gram matrices of the joint decomposition
  std::uint64_t projection_prng_key = 0;  ///< of the positions
  bool save_projection = true;            ///< false: V and the positions are found again from W
  double dropout = 0;                     ///< on the input, while training
  bool init_weights = true;  ///< the weight as it is; false: N(0, 0.1) on what is trained
  bool progressbar = true;   ///< read and written
  bool runtime_offload_base_weight = false;  ///< read and written
  bool fan_in_fan_out = false;
  std::string bias = "none";
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "FROD";

  template <class Visitor>
  void fields(Visitor& v) {
    v("sparse_rate", sparse_rate);
    v("regularization_alpha", regularization_alpha);
    v("projection_prng_key", projection_prng_key);
    v("save_projection", save_projection);
    v("frod_dropout", dropout);
    v("init_weights", init_weights);
    v("progressbar", progressbar);
    v("runtime_offload_base_weight", runtime_offload_base_weight);
    v("fan_in_fan_out", fan_in_fan_out);
    v("bias", bias);
    v("target_modules", target_modules);
    select.fields(v, {.exclude_modules = false, .rank_pattern = false, .alpha_pattern = false});
  }
  /// @throws ValueError for a rate outside of [0, 1].
  void validate() const {
    if (!(sparse_rate >= 0 && sparse_rate <= 1))
      throw ValueError(concat("FRoD: sparse_rate ", sparse_rate, ", expected in [0, 1]"));
  }
};

namespace detail {

inline std::vector<std::string> path_parts(std::string_view path) {
  std::vector<std::string> parts;
  for (std::size_t start = 0; start <= path.size();) {
    const auto dot = std::min(path.find('.', start), path.size());
    parts.emplace_back(path.substr(start, dot - start));
    start = dot + 1;
  }
  return parts;
}
inline bool is_number(const std::string& part) {
  return !part.empty() && part.size() < 10 &&
         std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; });
}

/// Layers of the same role share one V: "model.layers.3.self_attn.q_proj" is "self_attn_q_proj".
inline std::string frod_category(std::string_view path) {
  const auto parts = path_parts(path);
  const std::size_t n = parts.size();
  if (n == 1 || is_number(parts[n - 2])) return parts[n - 1];
  if (n >= 3 && parts[n - 3] == "attention" && parts[n - 2] == "output" && parts[n - 1] == "dense")
    return "attention_output";
  return parts[n - 2] + "_" + parts[n - 1];
}

/// Place of a site in the order of the joint decomposition: the number behind "layers", else the
/// first number, else that of the site.
inline Index frod_layer(std::string_view path, Index site) {
  const auto parts = path_parts(path);
  const auto layers = std::find(parts.begin(), parts.end(), "layers");
  if (layers != parts.end() && layers + 1 != parts.end() && is_number(*(layers + 1)))
    return std::stol(*(layers + 1));
  for (const auto& part : parts)
    if (is_number(part)) return std::stol(part);
  return site;
}

/// The paths that belong to each category, one a layer (the last of several), in order.
using FRoDGroups = std::map<std::string, std::map<Index, std::pair<std::string, Shape>>>;

inline FRoDGroups frod_groups(const std::vector<std::pair<std::string, Shape>>& sites) {
  FRoDGroups groups;
  Index number = 0;
  for (const auto& site : sites)
    groups[frod_category(site.first)][frod_layer(site.first, number++)] = site;
  return groups;
}

/// The basis V [in, in] of weights [out_i, in] of one role. With W_1; W_2; … = Q R and Q_i the rows
/// of W_i: V = Rᵀ E, E the eigenvectors of the mean of (Q_iᵀ Q_i + α I)⁻¹; with fewer rows than
/// columns the right singular vectors.
template <std::floating_point T>
BasicTensor<T> joint_basis(const std::vector<BasicTensor<T>>& weights, double alpha) {
  const Index in = weights[0].cols();
  Index rows = 0;
  for (const auto& w : weights) rows += w.rows();
  auto stacked = BasicTensor<double>::zeros({std::max(rows, in), in});
  Index first = 0;
  for (const auto& w : weights) {
    std::copy(w.begin(), w.end(), stacked.data() + first * in);
    first += w.rows();
  }
  if (rows < in) return svd(stacked).v.template cast<T>();
  const auto factors = qr(stacked);
  auto mean = BasicTensor<double>::zeros({in, in});
  first = 0;
  for (const auto& w : weights) {
    const auto part = factors.q.slice_rows(first, w.rows());
    auto gram = product(part, part, 1.0, true, false);
    for (Index i = 0; i < in; ++i) gram(i, i) += alpha;
    const auto term = inverse(gram);
    kernels::axpy(1.0 / static_cast<double>(weights.size()), term.data(), mean.data(), in * in);
    first += w.rows();
  }
  return product(factors.r, symmetric_eigen(mean).vectors, 1.0, true, false).template cast<T>();
}

/// Positions off the diagonal of [n, n], drawn without repetition: [2, ⌊n² rate⌋], at least one for
/// a rate above zero.
inline IndexTensor off_diagonal(Index n, double rate, TorchGenerator* generator) {
  const Index all = n * (n - 1);
  Index count =
      std::min(static_cast<Index>(static_cast<double>(n) * static_cast<double>(n) * rate), all);
  if (rate > 0 && all > 0) count = std::max<Index>(1, count);
  IndexTensor index;
  index.shape = {2, count};
  index.values.assign(static_cast<std::size_t>(2 * count), 0);
  if (generator == nullptr || count == 0) return index;
  const auto order = generator->randperm(all);
  for (Index k = 0; k < count; ++k) {
    const Index place = static_cast<Index>(order[static_cast<std::size_t>(k)]);
    const Index row = place / (n - 1), rest = place % (n - 1);
    index.values[static_cast<std::size_t>(k)] = row;
    index.values[static_cast<std::size_t>(count + k)] = rest + (rest >= row ? 1 : 0);
  }
  return index;
}

}  // namespace detail

/// FRoD: the weight becomes W' = U (diag(λ) + S) Vᵀ, S sparse off the diagonal: y = ((x V) (diag(λ)
/// + S)ᵀ) Uᵀ + bias.
///
/// V: [in, in], one for all layers of the same role (see detail::joint_basis), U: [out, in] and λ:
/// [in] from W V⁻ᵀ = U diag(λ) with columns of length one; V and U are frozen. Trained: in + ⌊in²
/// rate⌋. The weight itself at the start (S = 0), up to rounding; merges. Several adapters: each
/// adds W' − W. Source: doi:10.1609/aaai.v40i31.39813, in the form of PEFT. With save_projection
/// false V is found again, where the signs of its columns are those of whoever computes them.
/// Tensors: frod_lambda_l, frod_lambda_s_values; `base_model.frod_V.<role>`,
/// `base_model.frod_s_indices.<role>`, `base_model.frod_s_size.<role>`.
template <std::floating_point T>
class BasicFRoD {
 public:
  using Scalar = T;
  using Config = FRoDConfig;

  static MethodInfo info() {
    return {.peft_type = "FROD",
            .name = "FRoD",
            .family = "sparse",
            .paper = "doi:10.1609/aaai.v40i31.39813",
            .sites = "linear",
            .parameters = "in + sparse_rate in^2"};
  }

  BasicFRoD(const FRoDConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : dropout_((config.validate(), config.dropout)),
        save_projection_(config.save_projection),
        category_(detail::frod_category(site.path)),
        weight_(site.weight) {
    auto sites = site.all_sites;
    if (sites.empty()) sites = {{site.path, Shape{site.out_features, site.in_features}}};
    const auto groups = detail::frod_groups(sites);
    const bool from_file = context.loading && save_projection_;
    const auto& group = groups.at(category_);
    const Index in = group.begin()->second.second[1];
    if (in != site.in_features)
      throw ValueError(concat("FRoD: layers called ", category_, " have ", in, " and ",
                              site.in_features, " inputs, expected the same"));
    // One generator draws for every role, in the order of their names.
    const auto positions = context.shared.object("frod_positions", [&] {
      TorchGenerator generator(config.projection_prng_key);
      std::map<std::string, std::shared_ptr<IndexTensor>> all;
      for (const auto& [name, members] : groups)
        all[name] = std::make_shared<IndexTensor>(
            detail::off_diagonal(members.begin()->second.second[1], config.sparse_rate,
                                 from_file ? nullptr : &generator));
      return all;
    });
    positions_ = positions->at(category_);
    size_ = context.shared.object("frod_size." + category_, [&] {
      IndexTensor index;
      index.shape = {2};
      index.values = {in, in};
      return index;
    });
    v_ = context.shared.get(
        "frod_V." + category_,
        [&] {
          if (from_file) return BasicTensor<T>::zeros({in, in});
          std::vector<BasicTensor<T>> weights;
          for (const auto& [layer, member] : group) {
            if (member.second[1] != in)
              throw ValueError(concat("FRoD: layers called ", category_, " have ", in, " and ",
                                      member.second[1], " inputs, expected the same"));
            weights.push_back(member.first == site.path ? site.weight()
                                                        : site.weight_at(member.first));
          }
          return detail::joint_basis(weights, config.regularization_alpha);
        },
        false);
    auto values = BasicTensor<T>::zeros({positions_->shape[1]});
    auto lambda = BasicTensor<T>::zeros({in});
    if (!from_file) lambda = split();
    if (!config.init_weights && !context.loading) {
      context.generator.normal(values.data(), values.size(), 0, 0.1);
      const auto noise = detail::normal_tensor<T>(context.generator, lambda.shape(), 0.1);
      for (Index i = 0; i < in; ++i) lambda[i] += noise[i];
    }
    values_ = BasicParameter<T>(std::move(values));
    lambda_ = BasicParameter<T>(std::move(lambda));
    set_pattern();
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicFRoD(const FRoDConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicFRoD(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto& root = detail::root_of(base);
    const auto h = graft::dropout(x, dropout_);
    const auto z = matmul(h, tape.parameter(v_));
    const auto turned =
        add(mul(z, tape.parameter(lambda_)), sparse_matmul(z, tape.parameter(values_), pattern_));
    const auto out = matmul(turned, tape.constant(u_), Transpose::no, Transpose::yes);
    const auto bias = bias_of(root);
    if (h.value().data() == x.value().data() && !detail::has_adapters_below(base))
      return bias ? add(out, tape.constant(bias)) : out;
    const auto replaced = linear(root, h);
    const auto y = add(linear(base, x), sub(out, replaced));
    return bias ? add(y, tape.constant(bias)) : y;
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(5);
    list[0].name = "frod_lambda_l";
    list[0].parameter = lambda_;
    list[1].name = "frod_lambda_s_values";
    list[1].parameter = values_;
    list[2].name = "frod_V." + category_;
    list[2].parameter = v_;
    list[3].name = "frod_s_indices." + category_;
    list[3].index = positions_;
    list[4].name = "frod_s_size." + category_;
    list[4].index = size_;
    for (std::size_t i = 2; i < 5; ++i) {
      list[i].scope = AdapterTensor<T>::Scope::model;
      list[i].saved = save_projection_;
    }
    return list;
  }
  /// U belongs to the V of the file. @throws ValueError if a position is outside of the matrix.
  void after_load() {
    split();
    set_pattern();
  }

 private:
  /// Sets U and returns λ.
  BasicTensor<T> split() {
    const auto v = v_.value().template cast<double>();
    const auto w = weight_().template cast<double>();
    auto b = detail::product(w, inverse(v), 1.0, false, true);
    if (!std::all_of(b.begin(), b.end(), [](double x) { return std::isfinite(x); })) {
      const auto d = svd(v);  // a singular V: through its pseudo-inverse
      auto scaled = detail::product(w, d.v);
      for (Index i = 0; i < scaled.rows(); ++i)
        for (Index j = 0; j < scaled.cols(); ++j)
          scaled(i, j) = d.s[j] > 1e-6 * d.s[0] ? scaled(i, j) / d.s[j] : 0.0;
      b = detail::product(scaled, d.u, 1.0, false, true);
    }
    const Index out = b.rows(), in = b.cols();
    auto lambda = BasicTensor<T>::zeros({in});
    u_ = BasicTensor<T>::zeros({out, in});
    for (Index j = 0; j < in; ++j) {
      double square = 0;
      for (Index i = 0; i < out; ++i) square += b(i, j) * b(i, j);
      const double length = std::sqrt(square);
      lambda[j] = static_cast<T>(length);
      if (length <= 1e-12) continue;
      for (Index i = 0; i < out; ++i) u_(i, j) = static_cast<T>(b(i, j) / length);
    }
    return lambda;
  }
  void set_pattern() {
    auto pattern = std::make_shared<SparsePattern>();
    const Index in = v_.shape()[0], n = positions_->shape[1];
    pattern->rows = pattern->cols = in;
    for (Index k = 0; k < n; ++k) {
      const auto row = positions_->values[static_cast<std::size_t>(k)],
                 col = positions_->values[static_cast<std::size_t>(n + k)];
      if (row < 0 || row >= in || col < 0 || col >= in)
        throw ValueError(
            concat("FRoD: position (", row, ", ", col, ") outside of [", in, ", ", in, "]"));
      pattern->row.push_back(static_cast<std::int32_t>(row));
      pattern->col.push_back(static_cast<std::int32_t>(col));
    }
    pattern_ = std::move(pattern);
  }

  double dropout_;
  bool save_projection_;
  std::string category_;
  std::function<BasicTensor<T>()> weight_;
  BasicParameter<T> values_, lambda_, v_;
  BasicTensor<T> u_;
  std::shared_ptr<IndexTensor> positions_, size_;
  std::shared_ptr<const SparsePattern> pattern_;
};

using FRoD = BasicFRoD<float>;

}  // namespace graft::inline v0_1
