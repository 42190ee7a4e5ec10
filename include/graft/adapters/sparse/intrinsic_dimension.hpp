#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <memory>
#include <numbers>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/adapter.hpp"
#include "graft/adapters/effective_weight.hpp"
#include "graft/adapters/method.hpp"
#include "graft/autograd/ops/subspace_map.hpp"

namespace graft::inline v0_1 {

/// Configuration of training in a random subspace.
struct IntrinsicDimensionConfig {
  Index dimension = 1000;            ///< d, trained numbers of the whole model
  std::string projection = "dense";  ///< dense, sparse, raw or fastfood
  std::uint64_t seed = 0;            ///< of the projection
  bool train_bias = false;           ///< biases of the layers move too
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "INTRINSIC_DIMENSION";

  template <class Visitor>
  void fields(Visitor& v) {
    v("d", dimension);
    v("projection", projection);
    v("seed", seed);
    v("train_bias", train_bias);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for a dimension below one or an unknown projection.
  void validate() const {
    if (dimension < 1)
      throw ValueError(concat("intrinsic dimension: d ", dimension, ", expected at least 1"));
    if (projection != "dense" && projection != "sparse" && projection != "raw" &&
        projection != "fastfood")
      throw ValueError(concat("intrinsic dimension: projection '", projection,
                              "', expected dense, sparse, raw or fastfood"));
  }
};

/// Configuration of SAID.
struct SAIDConfig : IntrinsicDimensionConfig {
  SAIDConfig() { projection = "fastfood"; }
  static constexpr const char* kPeftType = "SAID";
};

namespace detail {

/// Divides the columns of matrices that stand one above the other by their norm over all of them.
/// Columns of zeros stay.
template <std::floating_point T>
void unit_columns(std::vector<BasicTensor<T>>& parts) {
  const Index d = parts[0].cols();
  std::vector<double> squares(static_cast<std::size_t>(d), 0);
  for (const auto& p : parts)
    for (Index i = 0; i < p.size(); ++i)
      squares[static_cast<std::size_t>(i % d)] +=
          static_cast<double>(p[i]) * static_cast<double>(p[i]);
  auto scale = BasicTensor<T>::empty({d});
  for (Index j = 0; j < d; ++j) {
    const double s = squares[static_cast<std::size_t>(j)];
    scale[j] = s > 0 ? static_cast<T>(1 / std::sqrt(s)) : T{1};
  }
  for (auto& p : parts)
    for (Index i = 0; i < p.size(); ++i) p[i] *= scale[i % d];
}

/// Sizes of normal numbers z: the quantiles of |z| in the middles of equal parts of [0, 1), times a
/// factor near one that makes their mean square one.
inline const std::array<float, 4096>& normal_sizes() {
  static const auto sizes = [] {
    std::array<double, 4096> exact;
    double x = 0, square = 0;
    for (std::size_t k = 0; k < exact.size(); ++k) {
      const double p = (static_cast<double>(k) + 0.5) / static_cast<double>(exact.size());
      for (int i = 0; i < 12; ++i)  // Newton's steps, from below
        x += (p - std::erf(x / std::numbers::sqrt2)) * std::exp(x * x / 2) *
             std::sqrt(std::numbers::pi / 2);
      exact[k] = x;
      square += x * x / static_cast<double>(exact.size());
    }
    std::array<float, 4096> rounded;
    for (std::size_t k = 0; k < exact.size(); ++k)
      rounded[k] = static_cast<float>(exact[k] / std::sqrt(square));
    return rounded;
  }();
  return sizes;
}

/// The first `count` of the normal numbers that belong to a seed, times `std`: each a sign and one
/// of 2¹² sizes, four from 64 mixed bits. A projection draws as many numbers as it has elements, at
/// each step; torch's draws take twenty times as long.
template <std::floating_point T>
void draw_normals(std::uint64_t seed, Index count, double std, T* out) {
  const auto& sizes = normal_sizes();
  const auto word = [seed](Index group) {
    return splitmix64(seed + kSplitMixStep * static_cast<std::uint64_t>(group + 1));
  };
  const auto number = [&sizes,
                       factor = static_cast<T>(static_cast<float>(std))](std::uint64_t bits) {
    const auto sign = static_cast<std::uint32_t>(bits & 0x1000U) << 19;
    const auto size = std::bit_cast<std::uint32_t>(sizes[bits & 0xfffU]);
    return factor * static_cast<T>(std::bit_cast<float>(size ^ sign));
  };
  Index i = 0;
  for (; i + 4 <= count; i += 4) {
    const auto bits = word(i / 4);
    for (Index k = 0; k < 4; ++k) out[i + k] = number(bits >> (16 * k));
  }
  for (Index k = 0; i + k < count; ++k) out[i + k] = number(word(i / 4) >> (16 * k));
}

/// Maps from θ to every tensor, drawn from a seed. Draws are in float, so that both precisions have
/// the same projection.
template <std::floating_point T>
class SubspaceDraws {
 public:
  using Map = std::shared_ptr<const SubspaceMap<T>>;
  /// Elements of projections that are kept in memory; more are drawn again for each new θ, and for
  /// each gradient.
  static constexpr Index kKept = Index{1} << 24;

  SubspaceDraws(std::vector<Index> sizes, Index d, std::uint64_t seed, Index kept = kKept)
      : sizes_(std::move(sizes)), d_(d), seed_(seed), kept_(kept) {
    for (const Index n : sizes_) total_ += n;
  }
  std::vector<Map> maps(const std::string& projection) const {
    if (projection == "fastfood") return fastfood();
    if (projection == "sparse") return sparse();
    return dense(projection == "raw" ? 0.01 : 1, projection == "dense");
  }

 private:
  std::vector<Map> fastfood() const {
    Index all = 0;
    for (const Index n : sizes_) all += fastfood_length(n, d_);
    std::vector<Map> list;
    for (std::size_t t = 0; t < sizes_.size(); ++t) {
      const auto draw = [length = fastfood_length(sizes_[t], d_), own = mixed(t)] {
        return draw_fastfood<T>(length, own);
      };
      if (3 * all <= kept_)
        list.push_back(std::make_shared<FastfoodMap<T>>(sizes_[t], d_, draw()));
      else
        list.push_back(std::make_shared<FastfoodMap<T>>(sizes_[t], d_, draw));
    }
    return list;
  }
  /// ±1 with probability 1 / √D in all D rows.
  std::vector<Map> sparse() const {
    std::vector<std::vector<typename SparseMap<T>::Element>> elements(sizes_.size());
    const double p = 1 / std::sqrt(static_cast<double>(total_));
    std::vector<std::pair<Index, T>> column;
    for (Index j = 0; j < d_; ++j) {
      TorchGenerator generator(mixed(static_cast<std::size_t>(j)));
      column.clear();
      for (Index row = -1;;) {
        // Rows to the next element are geometric.
        const double skip =
            p < 1 ? std::floor(std::log1p(-generator.uniform()) / std::log1p(-p)) : 0.0;
        if (skip >= static_cast<double>(total_ - row - 1)) break;
        row += 1 + static_cast<Index>(skip);
        column.emplace_back(row, (generator.random32() & 1U) != 0 ? T{1} : T{-1});
      }
      const T scale = static_cast<T>(
          1 / std::sqrt(static_cast<double>(std::max<std::size_t>(1, column.size()))));
      std::size_t t = 0;
      Index first = 0;
      for (const auto& [row, sign] : column) {
        while (row >= first + sizes_[t]) first += sizes_[t++];
        elements[t].push_back(
            {static_cast<std::int32_t>(row - first), static_cast<std::int32_t>(j), sign * scale});
      }
    }
    std::vector<Map> list;
    for (std::size_t t = 0; t < sizes_.size(); ++t)
      list.push_back(std::make_shared<SparseMap<T>>(sizes_[t], d_, std::move(elements[t])));
    return list;
  }
  std::vector<Map> dense(double std, bool unit) const {
    const Index block = std::max<Index>(1, (Index{1} << 16) / d_);
    const auto rows_of = [std, d = d_](std::uint64_t seed, Index b, Index count, T* out) {
      draw_normals(splitmix64(seed + kSplitMixStep * static_cast<std::uint64_t>(b)), count * d, std,
                   out);
    };
    std::vector<Map> list;
    std::vector<BasicTensor<T>> parts;
    const bool keep = total_ * d_ <= kept_;
    std::vector<double> squares(static_cast<std::size_t>(d_), 0);
    for (std::size_t t = 0; t < sizes_.size() && (keep || unit); ++t) {
      for (Index first = 0; first < sizes_[t]; first += block) {
        const Index count = std::min(block, sizes_[t] - first);
        if (keep && first == 0) parts.push_back(BasicTensor<T>::empty({sizes_[t], d_}));
        auto rows = keep ? BasicTensor<T>{} : BasicTensor<T>::empty({count, d_});
        T* to = keep ? parts.back().data() + first * d_ : rows.data();
        rows_of(mixed(t), first / block, count, to);
        if (!keep)
          for (Index i = 0; i < rows.size(); ++i)
            squares[static_cast<std::size_t>(i % d_)] +=
                static_cast<double>(rows[i]) * static_cast<double>(rows[i]);
      }
    }
    if (keep) {
      if (unit) unit_columns(parts);
      for (auto& p : parts) list.push_back(std::make_shared<DenseMap<T>>(std::move(p)));
      return list;
    }
    auto scale = BasicTensor<T>::ones({d_});
    for (Index j = 0; j < d_ && unit; ++j)
      scale[j] = static_cast<T>(1 / std::sqrt(squares[static_cast<std::size_t>(j)]));
    for (std::size_t t = 0; t < sizes_.size(); ++t)
      list.push_back(std::make_shared<DrawnMap<T>>(
          sizes_[t], block, scale, [rows_of, own = mixed(t)](Index b, Index count, T* out) {
            rows_of(own, b, count, out);
          }));
    return list;
  }
  std::uint64_t mixed(std::size_t number) const {
    return splitmix64(splitmix64(seed_) + kSplitMixStep * (number + 1));
  }

  std::vector<Index> sizes_;
  Index d_, total_ = 0;
  std::uint64_t seed_;
  Index kept_;
};

}  // namespace detail

/// Training in a random subspace: all adapted weights move by one trained vector, W_i ← W_i +
/// reshape(P_i θ). With SAID (`Config` = SAIDConfig) W_i ← W_i + λ_i reshape(P_i θ), one trained
/// λ_i a tensor.
///
/// θ: [d]; trained: d for the whole model; SAID: θ [d − m] and λ [m], m tensors. P, from `seed`:
/// dense (normal, columns of unit norm over all tensors), sparse (±1 with probability 1 / √D, unit
/// columns), raw (N(0, 0.01²)), fastfood (a map of its own for each tensor). Tensors in the order
/// of the layers, row by row; with `train_bias` each layer's bias after its weight. θ = 0 and λ = 1
/// at first, so the identity; merges. The weight itself is formed at each step, as the definition
/// wants: P θ has no structure that x could use. Projections of more than 2²⁴ elements are drawn
/// again whenever they are needed: with D adapted weights a step of dense and raw takes D d draws
/// twice, which only small models bear; fastfood takes D log D operations.
///
/// Sources: Li et al. 2018 (arXiv:1804.08838), eq. 2; SAID: Aghajanyan et al. 2021
/// (arXiv:2012.13255), eq. 3. Deviations: sparse columns have unit norm as dense ones (the code
/// normalises rows); Fastfood's length is that of the longer side, so that no element of θ is cut;
/// draws are this library's own, normal ones of dense and raw rounded to 2¹³ values. Tensors:
/// shared.intrinsic_theta, shared.said_lambda.
template <std::floating_point T, class C>
class BasicSubspace {
 public:
  using Scalar = T;
  using Config = C;
  using Map = std::shared_ptr<const SubspaceMap<T>>;
  static constexpr bool kScaled = std::is_same_v<C, SAIDConfig>;

  static MethodInfo info() {
    return {.peft_type = Config::kPeftType,
            .name = kScaled ? "SAID" : "Intrinsic dimension",
            .family = "sparse",
            .paper = kScaled ? "arXiv:2012.13255" : "arXiv:1804.08838",
            .sites = "linear",
            .parameters = "once d",
            .in_peft = false};
  }
  static Config example() {
    Config config;
    config.dimension = 24;
    return config;
  }

  /// @throws ValueError if SAID's d leaves nothing beside one number a tensor.
  BasicSubspace(const Config& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : plan_(context.shared.object("subspace", [] { return Plan{}; })) {
    config.validate();
    weight_ = plan_->add(site.out_features * site.in_features);
    if (config.train_bias && site.bias) bias_ = plan_->add(site.out_features);
    ++plan_->sites;
    if (plan_->sites >= static_cast<Index>(site.all_sites.size())) plan_->close(config);
  }
  /// For a layer of one's own.
  template <Linear L>
  BasicSubspace(const Config& config, const L& base, std::uint64_t seed = 0)
      : BasicSubspace(config, with_bias(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    const auto& root = detail::root_of(base);
    const auto y =
        detail::effective_weight(base, x, [plan = plan_, n = weight_, &root](BasicTape<T>& tape) {
          const auto w = tape.constant(weight_of(root));
          return add(w, reshape(plan->change(tape, n), w.shape()));
        });
    return bias_ < 0 ? y : add(y, plan_->change(x.tape(), bias_));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(kScaled ? 2 : 1);
    list[0].name = "model.shared.intrinsic_theta";
    list[0].parameter = plan_->theta;
    if (kScaled) {
      list[1].name = "model.shared.said_lambda";
      list[1].parameter = plan_->lambda;
    }
    for (auto& t : list) t.scope = AdapterTensor<T>::Scope::model;
    return list;
  }

  /// Another map to this layer's weight, or to its bias, in place of the drawn one.
  /// @throws ShapeError if it does not lead from θ to that tensor; ValueError if the bias is not
  /// trained.
  void set_map(Map map, bool of_bias = false) {
    if (of_bias && bias_ < 0) throw ValueError(concat(info().name, ": the bias is not trained"));
    auto& tensor = plan_->tensors[static_cast<std::size_t>(of_bias ? bias_ : weight_)];
    if (map->inputs() != plan_->theta.size() || map->outputs() != tensor.size)
      throw ShapeError(concat(info().name, ": a map from ", map->inputs(), " to ", map->outputs(),
                              " numbers, expected ", plan_->theta.size(), " to ", tensor.size));
    tensor.map = std::move(map);
  }
  const SubspaceMap<T>& map(bool of_bias = false) const {
    return *plan_->tensors.at(static_cast<std::size_t>(of_bias ? bias_ : weight_)).map;
  }
  bool trains_bias() const { return bias_ >= 0; }

 private:
  /// What all layers share; closed when the last one has named its tensors.
  struct Plan {
    struct Tensor {
      Index size;
      Map map;
    };
    std::vector<Tensor> tensors;
    Index sites = 0;
    BasicParameter<T> theta, lambda;

    Index add(Index size) {
      tensors.push_back({size, nullptr});
      return static_cast<Index>(tensors.size()) - 1;
    }
    void close(const Config& config) {
      const auto m = static_cast<Index>(tensors.size());
      const Index d = kScaled ? config.dimension - m : config.dimension;
      if (d < 1)
        throw ValueError(
            concat(info().name, ": d ", config.dimension, " for ", m, " tensors, expected more"));
      theta = BasicParameter<T>(BasicTensor<T>::zeros({d}));
      if (kScaled) lambda = BasicParameter<T>(BasicTensor<T>::ones({m}));
      std::vector<Index> sizes;
      for (const auto& t : tensors) sizes.push_back(t.size);
      auto maps =
          detail::SubspaceDraws<T>(std::move(sizes), d, config.seed).maps(config.projection);
      for (std::size_t t = 0; t < tensors.size(); ++t) tensors[t].map = std::move(maps[t]);
    }
    /// What tensor n gains, flat.
    BasicVar<T> change(BasicTape<T>& tape, Index n) const {
      auto y = subspace_map(tape.parameter(theta), tensors[static_cast<std::size_t>(n)].map);
      return kScaled ? mul(y, slice(tape.parameter(lambda), 0, n, 1)) : y;
    }
  };
  template <Linear L>
  static LinearSiteInfo<T> with_bias(const L& base) {
    auto site = site_info(base);
    site.bias = bias_of(base);
    return site;
  }

  std::shared_ptr<Plan> plan_;
  Index weight_ = 0, bias_ = -1;  // numbers of this layer's tensors
};

template <std::floating_point T>
using BasicIntrinsicDimension = BasicSubspace<T, IntrinsicDimensionConfig>;
template <std::floating_point T>
using BasicSAID = BasicSubspace<T, SAIDConfig>;
using IntrinsicDimension = BasicIntrinsicDimension<float>;
using SAID = BasicSAID<float>;

}  // namespace graft::inline v0_1
