#pragma once

#include <string>
#include <vector>

#include "graft/adapters/adapter.hpp"
#include "graft/adapters/method.hpp"
#include "graft/autograd/ops/block_matmul.hpp"
#include "graft/autograd/ops/linalg.hpp"

namespace graft::inline v0_1 {

/// Configuration of BOFT, fields as PEFT's BOFTConfig.
struct BOFTConfig {
  Index block_size = 4;  ///< exactly one of it and the number of blocks is not zero
  Index blocks = 0;
  Index factors = 1;   ///< butterfly factors m
  double dropout = 0;  ///< share of blocks of one factor that become the identity, while training
  bool fan_in_fan_out = false;
  bool init_weights = true;  ///< R = 0, s = 1; false: N(0, 0.1), N(1, 0.1)
  std::string bias = "none";
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "BOFT";

  template <class Visitor>
  void fields(Visitor& v) {
    v("boft_block_size", block_size);
    v("boft_block_num", blocks);
    v("boft_n_butterfly_factor", factors);
    v("boft_dropout", dropout);
    v("fan_in_fan_out", fan_in_fan_out);
    v("init_weights", init_weights);
    v("bias", bias);
    v("target_modules", target_modules);
    select.fields(v, {.rank_pattern = false, .alpha_pattern = false});
  }
  /// @throws ValueError unless exactly one of block size and number is positive, and m is.
  void validate() const {
    if ((blocks > 0) == (block_size > 0) || blocks < 0 || block_size < 0)
      throw ValueError(concat("BOFT: boft_block_size ", block_size, " and boft_block_num ", blocks,
                              ", expected exactly one above zero"));
    if (factors < 1)
      throw ValueError(concat("BOFT: boft_n_butterfly_factor ", factors, ", expected at least 1"));
    if (!(dropout >= 0 && dropout <= 1))
      throw ValueError(concat("BOFT: boft_dropout ", dropout, ", expected [0, 1]"));
  }
};

/// BOFT: y = ((x F_{m−1} … F_1 F_0) Wᵀ) ⊙ s + b, F_i = P_i diag(R_i0, R_i1, …) P_iᵀ,
/// R = (I − Q)(I + Q)⁻¹, Q = (M − Mᵀ) / 2.
///
/// P_i sorts the half blocks of each group of 2ⁱ blocks, even ones first; P_0 is the identity. M:
/// [m, in/b, b, b], s: [out]; trained: m in b + out. The identity at the start; merges. Any m
/// works, without compiled extensions. Source: Liu et al. 2024 (arXiv:2311.06243), section 4; s as
/// in PEFT. Tensors: boft_R, boft_s.
template <std::floating_point T>
class BasicBOFT {
 public:
  using Scalar = T;
  using Config = BOFTConfig;

  static MethodInfo info() {
    return {.peft_type = "BOFT",
            .name = "BOFT",
            .family = "orthogonal",
            .paper = "arXiv:2311.06243",
            .sites = "linear, conv",
            .parameters = "m in b + out, m = boft_n_butterfly_factor, b = boft_block_size"};
  }

  /// @throws ValueError if blocks do not divide in, or groups of 2^(m−1) half blocks do not.
  BasicBOFT(const BOFTConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : factors_(config.factors), dropout_(config.dropout), conv_(!site.conv.kernel.empty()) {
    config.validate();
    const Index in = site.in_features,
                given = config.blocks > 0 ? config.blocks : config.block_size;
    if (in % given != 0)
      throw ValueError(
          concat("BOFT: ", given, " does not divide the ", in, " inputs of ", site.path));
    size_ = config.blocks > 0 ? in / given : given;
    blocks_ = in / size_;
    if (factors_ > 1 &&
        (factors_ > 60 || size_ % 2 != 0 || blocks_ % (Index{1} << (factors_ - 1)) != 0))
      throw ValueError(
          concat("BOFT: ", factors_,
                 " butterfly factors need an even block size and blocks in groups of 2^",
                 factors_ - 1, "; there are ", blocks_, " blocks of ", size_));
    auto m = BasicTensor<T>::zeros({factors_, blocks_, size_, size_});
    auto s = BasicTensor<T>::full({site.out_features}, T{1});
    if (!config.init_weights && !context.loading) {
      context.generator.normal(m.data(), m.size(), 0, 0.1);
      context.generator.normal(s.data(), s.size(), 1, 0.1);
    }
    m_ = BasicParameter<T>(std::move(m));
    s_ = BasicParameter<T>(std::move(s));
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicBOFT(const BOFTConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicBOFT(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const Index rows = x.rows();
    const auto m = reshape(tape.parameter(m_), {factors_ * blocks_, size_, size_});
    const auto q = scale(sub(m, permute(m, {0, 2, 1})), static_cast<T>(0.5));
    const auto one = tape.constant(BasicTensor<T>::identity(size_).reshape({1, size_, size_}));
    auto r = matmul(sub(one, q), inverse(add(one, q)));
    if (dropout_ > 0 && tape.training())
      r = add(one, mul(sub(r, one), tape.constant(block_mask(tape))));
    auto z = reshape(x, {rows, blocks_ * size_});
    for (Index i = factors_; i-- > 0;) {
      z = swap_halves(z, i, false);
      z = block_matmul(z, slice(r, 0, i * blocks_, blocks_));
      z = swap_halves(z, i, true);
    }
    const auto y = linear(base, reshape(z, x.shape()));
    const auto s = tape.parameter(s_);
    const auto bias = bias_of(base);
    if (!bias) return mul(y, s);
    const auto b = tape.constant(bias);
    return add(mul(sub(y, b), s), b);
  }
  std::vector<AdapterTensor<T>> tensors() const {
    const Index out = s_.size();
    std::vector<AdapterTensor<T>> list;
    list.push_back({.name = "boft_R", .parameter = m_, .index = {}, .file_shape = {}});
    list.push_back({.name = "boft_s",
                    .parameter = s_,
                    .index = {},
                    .file_shape = conv_ ? Shape{1, out} : Shape{out, 1}});
    return list;
  }

 private:
  /// z P_i, or z P_iᵀ (even half blocks first).
  BasicVar<T> swap_halves(const BasicVar<T>& z, Index factor, bool back) const {
    if (factor == 0) return z;
    const Index pairs = Index{1} << factor, groups = z.dim(0) * blocks_ / pairs, half = size_ / 2;
    const Shape seen = back ? Shape{groups, pairs, 2, half} : Shape{groups, 2, pairs, half};
    return reshape(permute(reshape(z, seen), {0, 2, 1, 3}), z.shape());
  }
  /// Ones, and zeros at the blocks of one random factor that are dropped in this pass.
  BasicTensor<T> block_mask(BasicTape<T>& tape) const {
    TorchGenerator rng(tape.next_random_key());
    auto mask = BasicTensor<T>::full({factors_ * blocks_, 1, 1}, T{1});
    const Index factor = static_cast<Index>(rng.randint(0, factors_));
    Index left = static_cast<Index>(dropout_ * static_cast<double>(blocks_));
    for (Index i = 0; i < blocks_ && left > 0; ++i)
      if (static_cast<Index>(rng.randint(0, blocks_ - i)) < left) {
        mask[factor * blocks_ + i] = 0;
        --left;
      }
    return mask;
  }

  Index factors_, blocks_ = 1, size_ = 1;
  double dropout_;
  bool conv_;
  BasicParameter<T> m_;
  BasicParameter<T> s_;
};

using BOFT = BasicBOFT<float>;

}  // namespace graft::inline v0_1
