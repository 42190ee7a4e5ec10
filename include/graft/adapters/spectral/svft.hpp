#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/adapter.hpp"
#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/spectral/factors.hpp"
#include "graft/autograd/ops/sparse_matmul.hpp"

namespace graft::inline v0_1 {

/// Configuration of SVFT.
struct SVFTConfig {
  std::string pattern = "plain";   ///< plain (the diagonal), banded, random or top_k
  Index off_diag = 0;              ///< width of the band, and by it the number of entries
  std::optional<Index> rank = {};  ///< leading singular vectors in use; null: all
  bool gate = false;               ///< M is multiplied by sigmoid(gate), one trained number
  bool truncate = false;           ///< the weight loses its components beyond the rank
  bool fill = false;               ///< vectors beyond the rank are replaced by random ones
  std::string init = "zero";       ///< official: N(0, 2 / entries), with the gate
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "SVFT";

  template <class Visitor>
  void fields(Visitor& v) {
    v("pattern", pattern);
    v("off_diag", off_diag);
    v("rank", rank);
    v("gate", gate);
    v("truncate", truncate);
    v("fill", fill);
    v("init", init);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for an unknown word, a negative band or a rank below one.
  void validate() const {
    if (pattern != "plain" && pattern != "banded" && pattern != "random" && pattern != "top_k")
      throw ValueError(
          concat("SVFT: pattern '", pattern, "', expected plain, banded, random or top_k"));
    if (init != "zero" && init != "official")
      throw ValueError(concat("SVFT: init '", init, "', expected zero or official"));
    if (off_diag < 0)
      throw ValueError(concat("SVFT: off_diag ", off_diag, ", expected at least 0"));
    if (rank && *rank < 1) throw ValueError(concat("SVFT: rank ", *rank, ", expected at least 1"));
  }
};

/// SVFT: y = base(x) + ((x V) Mᵀ) Uᵀ with W = U diag(σ) Vᵀ and a sparse trained M: W' = U (diag(σ)
/// + M) Vᵀ.
///
/// U: [out, n], V: [in, n], M: [n, n] with k entries, n = min(in, out) or the rank; trained: the k
/// entries (plain n; banded, random and top-k n (2 d + 1) − d (d + 1) with d = off_diag), one more
/// with the gate. Random positions may occur twice and then add up; top-k takes the largest entries
/// of UᵀV, which needs in = out. The identity at the start, but for `truncate`, `fill` and the
/// official init; merges. `truncate`: W' = U_n (diag(σ_n) + M) V_nᵀ; `fill` adds random orthonormal
/// columns of singular value zero to U_n and V_n up to min(in, out). x V and the rest act on
/// activations; ΔW is never formed.
///
/// Source: Lingam et al. 2024 (arXiv:2405.19597), section 3. Deviations from the released code: M
/// begins as zero and ungated; W keeps what is beyond the rank; top-k reads UᵀV (the code UV);
/// every column of U has its entry of largest magnitude positive. Tensors: svft_M [k], svft_gate
/// [1], svft_indices [2, k] (rows, columns; files of the plain pattern may lack them), svft_fill_U,
/// svft_fill_V; singular vectors come from W and are not saved.
template <std::floating_point T>
class BasicSVFT {
 public:
  using Scalar = T;
  using Config = SVFTConfig;

  static MethodInfo info() {
    return {.peft_type = "SVFT",
            .name = "SVFT",
            .family = "spectral",
            .paper = "arXiv:2405.19597",
            .sites = "linear",
            .parameters = "min(in, out)",
            .in_peft = false};
  }

  /// @throws ValueError for a rank above min(in, out), a band that is wider than M, or top-k at a
  /// layer that is not square.
  BasicSVFT(const SVFTConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context) {
    config.validate();
    const Index in = site.in_features, out = site.out_features, q = std::min(in, out);
    const Index rank = config.rank.value_or(q);
    if (rank > q)
      throw ValueError(concat("SVFT: rank ", rank, " at ", site.path, ", expected at most ", q));
    fill_ = config.fill && rank < q;
    replaces_ = fill_ || (config.truncate && rank < q);
    plain_ = config.pattern == "plain";
    n_ = fill_ ? q : rank;
    auto d = detail::signed_svd(site.weight());
    u_ = detail::leading_columns(d.u, rank);
    v_ = detail::leading_columns(d.v, rank);
    sigma_ = detail::leading_elements(d.s, rank);
    if (fill_) {
      const auto draw = [&](Index rows) {
        const Shape shape{rows, q - rank};
        return context.loading ? BasicTensor<T>::zeros(shape)
                               : qr(detail::normal_tensor<T>(context.generator, shape, 1)).q;
      };
      fill_u_ = BasicParameter<T>(draw(out), false);
      fill_v_ = BasicParameter<T>(draw(in), false);
      auto sigma = BasicTensor<T>::zeros({q});
      std::copy_n(sigma_.data(), rank, sigma.data());
      sigma_ = std::move(sigma);
    }
    places_ = std::make_shared<IndexTensor>();
    choose(config, site.path, context);
    const Index k = places_->shape[1];
    auto m = BasicTensor<T>::zeros({k});
    const bool official = config.init == "official";
    if (official && !context.loading)
      context.generator.normal(m.data(), k, 0, std::sqrt(2.0 / static_cast<double>(k)));
    m_ = BasicParameter<T>(std::move(m));
    if (config.gate || official) gate_ = BasicParameter<T>(BasicTensor<T>::zeros({1}));
    after_load();
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicSVFT(const SVFTConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicSVFT(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    auto m = tape.parameter(m_);
    if (gate_) m = mul(m, sigmoid(tape.parameter(gate_)));
    const auto h = matmul(x, tape.constant(v_full_));
    const auto out = [&](const BasicVar<T>& g) {
      return matmul(g, tape.constant(u_full_), Transpose::no, Transpose::yes);
    };
    if (diagonal_ && replaces_)
      return detail::in_place_of_weight(base, x, out(mul(h, add(m, tape.constant(sigma_)))));
    const auto changed = diagonal_ ? mul(h, m) : sparse_matmul(h, m, pattern_);
    if (!replaces_) return add(linear(base, x), out(changed));
    return detail::in_place_of_weight(base, x, out(add(changed, mul(h, tape.constant(sigma_)))));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    const auto add = [&](const char* name, const BasicParameter<T>& parameter) {
      if (!parameter) return;
      list.emplace_back();
      list.back().name = name;
      list.back().parameter = parameter;
    };
    add("svft_M", m_);
    add("svft_gate", gate_);
    if (listed_) {
      list.emplace_back();
      list.back().name = "svft_indices";
      list.back().index = places_;
    }
    add("svft_fill_U", fill_u_);
    add("svft_fill_V", fill_v_);
    return list;
  }
  void before_load(const CheckpointShapes& shapes) {
    if (const Shape* m = shapes("svft_M"); m != nullptr && m->rank() == 1 && !plain_) {
      m_.assign(BasicTensor<T>::zeros(*m));
      places_->shape = {2, m->elements()};
      places_->values.assign(static_cast<std::size_t>(2 * m->elements()), 0);
    }
    listed_ = !plain_ || shapes("svft_indices") != nullptr;
    if (gate_ && shapes("svft_gate") == nullptr) gate_ = {};
  }
  /// @throws ValueError if a position of the file is outside of M.
  void after_load() {
    auto pattern = std::make_shared<SparsePattern>();
    pattern->rows = pattern->cols = n_;
    const auto k = static_cast<std::size_t>(m_.size());
    diagonal_ = m_.size() == n_;
    for (std::size_t i = 0; i < k; ++i) {
      const auto row = places_->values[i], col = places_->values[k + i];
      if (row < 0 || row >= n_ || col < 0 || col >= n_)
        throw ValueError(
            concat("SVFT: position (", row, ", ", col, ") outside of [", n_, ", ", n_, "]"));
      pattern->row.push_back(static_cast<std::int32_t>(row));
      pattern->col.push_back(static_cast<std::int32_t>(col));
      diagonal_ = diagonal_ && row == static_cast<Index>(i) && col == row;
    }
    pattern_ = std::move(pattern);
    u_full_ = fill_ ? beside(u_, fill_u_.value()) : u_;
    v_full_ = fill_ ? beside(v_, fill_v_.value()) : v_;
  }

 private:
  static BasicTensor<T> beside(const BasicTensor<T>& a, const BasicTensor<T>& b) {
    auto c = BasicTensor<T>::empty({a.rows(), a.cols() + b.cols()});
    for (Index i = 0; i < a.rows(); ++i) {
      std::copy_n(a.data() + i * a.cols(), a.cols(), &c(i, 0));
      std::copy_n(b.data() + i * b.cols(), b.cols(), &c(i, a.cols()));
    }
    return c;
  }
  /// Positions of the entries, as [2, k]; those that a checkpoint brings are left open.
  void choose(const SVFTConfig& config, const std::string& path, InitContext<T>& context) {
    const Index d = plain_ ? 0 : config.off_diag;
    if (d >= n_)
      throw ValueError(
          concat("SVFT: off_diag ", d, " at ", path, ", expected below ", n_, ", the size of M"));
    const Index k = n_ * (2 * d + 1) - d * (d + 1);
    std::vector<std::int64_t> rows, cols;
    if (config.pattern == "random") {
      for (Index i = 0; i < k; ++i) {
        rows.push_back(context.loading ? 0 : context.generator.randint(n_));
        cols.push_back(context.loading ? 0 : context.generator.randint(n_));
      }
    } else if (config.pattern == "top_k") {
      if (u_.rows() != v_.rows())
        throw ValueError(concat("SVFT: pattern top_k at ", path, ", [", u_.rows(), ", ", v_.rows(),
                                "], expected a square layer"));
      const auto u = fill_ ? beside(u_, fill_u_.value()) : u_,
                 v = fill_ ? beside(v_, fill_v_.value()) : v_;
      const auto alignment = detail::product(u, v, T{1}, true);
      std::vector<Index> order(static_cast<std::size_t>(alignment.size()));
      std::iota(order.begin(), order.end(), Index{0});
      std::partial_sort(order.begin(), order.begin() + k, order.end(), [&](Index a, Index b) {
        return alignment[a] != alignment[b] ? alignment[a] > alignment[b] : a < b;
      });
      order.resize(static_cast<std::size_t>(k));
      std::sort(order.begin(), order.end());
      for (const Index place : order) {
        rows.push_back(place / n_);
        cols.push_back(place % n_);
      }
    } else {
      for (Index i = 0; i < n_; ++i)
        for (Index j = std::max<Index>(0, i - d); j <= std::min(n_ - 1, i + d); ++j) {
          rows.push_back(i);
          cols.push_back(j);
        }
    }
    places_->shape = {2, k};
    places_->values = std::move(rows);
    places_->values.insert(places_->values.end(), cols.begin(), cols.end());
  }

  bool fill_ = false;
  bool replaces_ = false;  // the frozen weight is not what the update is added to
  bool plain_ = true, diagonal_ = true;
  bool listed_ = true;  // files hold the positions
  Index n_ = 0;         // size of M
  BasicTensor<T> u_, v_, sigma_, u_full_, v_full_;
  BasicParameter<T> m_, gate_, fill_u_, fill_v_;
  std::shared_ptr<IndexTensor> places_;
  std::shared_ptr<const SparsePattern> pattern_;
};

using SVFT = BasicSVFT<float>;

}  // namespace graft::inline v0_1
