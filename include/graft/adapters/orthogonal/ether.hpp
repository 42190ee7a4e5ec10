#pragma once

#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/adapter.hpp"
#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"
#include "graft/autograd/ops/block_matmul.hpp"

namespace graft::inline v0_1 {

/// Configuration of ETHER.
struct ETHERConfig {
  Index n_blocks = 1;          ///< blocks of the reflection, a divisor of the width of the side
  std::string side = "input";  ///< what is reflected: input or output
  double dropout = 0;          ///< on the input of the whole layer, while training
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "ETHER";

  template <class Visitor>
  void fields(Visitor& v) {
    v("n_blocks", n_blocks);
    v("side", side);
    v("dropout", dropout);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for a number of blocks below one, another side, or a dropout outside of
  /// [0, 1).
  void validate() const {
    if (n_blocks < 1)
      throw ValueError(concat("ETHER: n_blocks ", n_blocks, ", expected at least 1"));
    if (side != "input" && side != "output")
      throw ValueError(concat("ETHER: side '", side, "', expected input or output"));
    if (!(dropout >= 0 && dropout < 1))
      throw ValueError(concat("ETHER: dropout ", dropout, ", expected in [0, 1)"));
  }
};

/// Configuration of ETHER+.
struct ETHERPlusConfig {
  Index n_blocks = 1;          ///< blocks on each side, a divisor of its width
  std::string sides = "both";  ///< both, or input alone
  double dropout = 0;          ///< on the input of the whole layer, while training
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "ETHER_PLUS";

  template <class Visitor>
  void fields(Visitor& v) {
    v("n_blocks", n_blocks);
    v("sides", sides);
    v("dropout", dropout);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError as ETHER's.
  void validate() const {
    if (n_blocks < 1)
      throw ValueError(concat("ETHER+: n_blocks ", n_blocks, ", expected at least 1"));
    if (sides != "both" && sides != "input")
      throw ValueError(concat("ETHER+: sides '", sides, "', expected both or input"));
    if (!(dropout >= 0 && dropout < 1))
      throw ValueError(concat("ETHER+: dropout ", dropout, ", expected in [0, 1)"));
  }
};

namespace detail {

/// Vectors [n_blocks, width / n_blocks] of a side, drawn U(±√(n_blocks / width)).
/// @throws ValueError if the number of blocks does not divide the width.
template <std::floating_point T>
BasicTensor<T> block_vectors(const char* method, Index blocks, Index width, const std::string& path,
                             InitContext<T>& context) {
  if (width % blocks != 0)
    throw ValueError(
        concat(method, ": n_blocks ", blocks, " does not divide ", width, " at ", path));
  const Shape shape{blocks, width / blocks};
  return kaiming_uniform_tensor<T>(context, shape, shape[1]);
}
template <std::floating_point T>
BasicVar<T> unit_rows(const BasicVar<T>& rows) {
  return div(rows, norm_last(rows));
}
/// What blockdiag(Σ_t c_t û_t û_tᵀ) makes of x: column block k is Σ_t c_t (x_k · û_tk) û_tk.
/// `vectors` holds û_t as [n, b]; x: [..., n b].
template <std::floating_point T>
BasicVar<T> block_projections(const BasicVar<T>& x, const std::vector<BasicVar<T>>& vectors,
                              const std::vector<T>& coefficients) {
  const Index n = vectors[0].rows(), b = vectors[0].cols();
  std::vector<BasicVar<T>> read, write;
  for (std::size_t t = 0; t < vectors.size(); ++t) {
    read.push_back(reshape(vectors[t], {n, 1, b}));
    write.push_back(reshape(scale(vectors[t], coefficients[t]), {n, 1, b}));
  }
  const auto stacked = [](const std::vector<BasicVar<T>>& rows) {
    return rows.size() == 1 ? rows[0] : concat_along(1, rows);
  };
  return block_matmul(block_matmul(x, stacked(read), Transpose::yes), stacked(write));
}
/// base(x) without its bias.
template <Linear L>
BasicVar<ScalarOf<L>> without_bias(const L& base, const BasicVar<ScalarOf<L>>& y) {
  const auto bias = bias_of(base);
  return bias ? sub(y, y.tape().constant(bias)) : y;
}

}  // namespace detail

/// ETHER: y = (x H) Wᵀ + b on the input side, y = (x Wᵀ) H + b on the output side, H =
/// blockdiag(I − 2 û_k û_kᵀ), û_k = u_k / ‖u_k‖: one reflection in each block.
///
/// u: [n, width / n] of n blocks; trained: in, or out. Not the identity at the start (a reflection
/// is none; ‖H − I‖ = 2 √n for every u); merges: W H or H W. Applied to activations, no width ×
/// width matrix appears. u must not be zero. Source: Bini et al. 2024 (arXiv:2405.20271), section
/// 3. Deviation from the released code: blocks are those of a block-diagonal matrix (the code's
/// reshape mixes rows for n > 1); as there, the bias is not reflected. Tensor: ether_u.
template <std::floating_point T>
class BasicETHER {
 public:
  using Scalar = T;
  using Config = ETHERConfig;

  static MethodInfo info() {
    return {.peft_type = "ETHER",
            .name = "ETHER",
            .family = "orthogonal",
            .paper = "arXiv:2405.20271",
            .sites = "linear, conv",
            .parameters = "in",
            .in_peft = false,
            .identity_at_init = false};
  }

  BasicETHER(const ETHERConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : output_((config.validate(), config.side == "output")), dropout_(config.dropout) {
    u_ = BasicParameter<T>(detail::block_vectors<T>("ETHER", config.n_blocks,
                                                    output_ ? site.out_features : site.in_features,
                                                    site.path, context));
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicETHER(const ETHERConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicETHER(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& input) const {
    const auto x = graft::dropout(input, dropout_);
    const auto u = detail::unit_rows(x.tape().parameter(u_));
    const auto reflected = [&](const BasicVar<T>& v) {
      return detail::block_projections<T>(v, {u}, {T{-2}});
    };
    if (!output_) return linear(base, add(x, reflected(x)));
    const auto y = linear(base, x);
    return add(y, reflected(detail::without_bias(base, y)));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(1);
    list[0].name = "ether_u";
    list[0].parameter = u_;
    return list;
  }

 private:
  bool output_;
  double dropout_;
  BasicParameter<T> u_;
};

/// ETHER+: y = ((x H_in) Wᵀ) H_out + b, H = blockdiag(I − û_k û_kᵀ + v̂_k v̂_kᵀ) on each side: a
/// reflection that can relax to nothing.
///
/// u, v: [n, in / n] and [n, out / n]; trained: 2 (in + out), with the input side alone 2 in. The
/// identity at the start (v = −u); merges: H_out W H_in. Source: Bini et al. 2024
/// (arXiv:2405.20271), section 3; block-diagonal form and untransformed bias as in ETHER. Tensors:
/// ether_u_in, ether_v_in, ether_u_out, ether_v_out.
template <std::floating_point T>
class BasicETHERPlus {
 public:
  using Scalar = T;
  using Config = ETHERPlusConfig;

  static MethodInfo info() {
    return {.peft_type = "ETHER_PLUS",
            .name = "ETHER+",
            .family = "orthogonal",
            .paper = "arXiv:2405.20271",
            .sites = "linear, conv",
            .parameters = "2 (in + out)",
            .in_peft = false};
  }

  BasicETHERPlus(const ETHERPlusConfig& config, const LinearSiteInfo<T>& site,
                 InitContext<T>& context)
      : dropout_((config.validate(), config.dropout)) {
    const auto side = [&](Index width) {
      auto u = detail::block_vectors<T>("ETHER+", config.n_blocks, width, site.path, context);
      auto v = u.clone();
      for (T& e : v) e = -e;
      return Side{BasicParameter<T>(std::move(u)), BasicParameter<T>(std::move(v))};
    };
    in_ = side(site.in_features);
    if (config.sides == "both") out_ = side(site.out_features);
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicETHERPlus(const ETHERPlusConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicETHERPlus(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& input) const {
    const auto x = graft::dropout(input, dropout_);
    const auto y = linear(base, add(x, change(in_, x)));
    return out_.u ? add(y, change(out_, detail::without_bias(base, y))) : y;
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    const auto add = [&](const char* name, const BasicParameter<T>& parameter) {
      if (parameter) list.push_back(detail::named(name, parameter));
    };
    add("ether_u_in", in_.u);
    add("ether_v_in", in_.v);
    add("ether_u_out", out_.u);
    add("ether_v_out", out_.v);
    return list;
  }

 private:
  struct Side {
    BasicParameter<T> u, v;
  };
  /// x (H − I).
  static BasicVar<T> change(const Side& side, const BasicVar<T>& x) {
    auto& tape = x.tape();
    return detail::block_projections<T>(
        x, {detail::unit_rows(tape.parameter(side.u)), detail::unit_rows(tape.parameter(side.v))},
        {T{-1}, T{1}});
  }

  double dropout_;
  Side in_, out_;
};

using ETHER = BasicETHER<float>;
using ETHERPlus = BasicETHERPlus<float>;

}  // namespace graft::inline v0_1
