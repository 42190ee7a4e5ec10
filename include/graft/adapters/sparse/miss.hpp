#pragma once

#include <vector>

#include "graft/adapters/adapter.hpp"
#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/root.hpp"

namespace graft::inline v0_1 {

/// Configuration of MiSS, fields as PEFT's MissConfig.
struct MiSSConfig {
  Index rank = 64;
  Index mini_rank = 1;  ///< columns of the block with init_weights "mini"
  double dropout = 0;   ///< on the input of the branch, while training
  ConfigValue init_weights =
      true;  ///< true: zeros; false: random; "bat" and "mini": other forms, zeros
  std::string bias = "none";
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "MISS";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("mini_r", mini_rank);
    v("miss_dropout", dropout);
    v("init_weights", init_weights);
    v("bias", bias);
    v("target_modules", target_modules);
    select.fields(v, {.rank_pattern = false, .alpha_pattern = false});
  }
  /// @throws ValueError for ranks below one or an unknown init.
  void validate() const {
    if (rank < 1 || mini_rank < 1)
      throw ValueError(concat("MiSS: r ", rank, ", mini_r ", mini_rank, ", expected at least 1"));
    if (init_weights.get_if<bool>() == nullptr && init_weights != ConfigValue("bat") &&
        init_weights != ConfigValue("mini"))
      throw ValueError("MiSS: init_weights expected true, false, \"bat\" or \"mini\"");
  }
};

/// MiSS: y = base(x) + (Σ_c x_c) D, x_c the chunks of r inputs (the last padded with zeros), D: [r,
/// out].
///
/// Trained: r · out; "mini": D is [r, mini_r] repeated along the outputs, r · mini_r; "bat" (Bone):
/// with W in tiles of r × r, ΔW_ac = W_ac D_a + D_a, D: [out/r, r, r], r · out. The identity at the
/// start except for init_weights false; merges. Source: Kang & Yin 2024 (arXiv:2409.15371). Tensor:
/// miss_block.
template <std::floating_point T>
class BasicMiSS {
 public:
  using Scalar = T;
  using Config = MiSSConfig;

  static MethodInfo info() {
    return {.peft_type = "MISS",
            .name = "MiSS",
            .family = "sparse",
            .paper = "arXiv:2409.15371",
            .sites = "linear",
            .parameters = "r out"};
  }

  /// @throws ValueError if "bat" has an r that does not divide in and out, or mini_r does not
  /// divide out.
  BasicMiSS(const MiSSConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : rank_(config.rank),
        dropout_(config.dropout),
        bat_(config.init_weights == ConfigValue("bat")) {
    config.validate();
    const Index out = site.out_features, in = site.in_features;
    const bool mini = config.init_weights == ConfigValue("mini");
    if (bat_ && (out % rank_ != 0 || in % rank_ != 0))
      throw ValueError(concat("MiSS: r ", rank_, " does not divide both ", in, " inputs and ", out,
                              " outputs of ", site.path));
    if (mini && out % config.mini_rank != 0)
      throw ValueError(concat("MiSS: mini_r ", config.mini_rank, " does not divide the ", out,
                              " outputs of ", site.path));
    const Shape shape =
        bat_ ? Shape{out / rank_, rank_, rank_} : Shape{rank_, mini ? config.mini_rank : out};
    const bool random = config.init_weights == ConfigValue(false) && !context.loading;
    block_ =
        BasicParameter<T>(random ? detail::kaiming_uniform_tensor<T>(context.generator, shape, out)
                                 : BasicTensor<T>::zeros(shape));
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicMiSS(const MiSSConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicMiSS(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto y = linear(base, x);
    const Index in = x.cols(), out = y.cols(), rows = x.rows(), r = rank_;
    auto d = tape.parameter(block_);
    if (bat_) {  // W as [a, o c, j] times D_a
      // W with what the adapters below make of it.
      const auto frozen = detail::has_adapters_below(base) ? detail::weight_by_units(base, tape)
                                                           : tape.constant(weight_of(base));
      const auto w = reshape(frozen, {out / r, in, r});
      const auto product = reshape(matmul(w, d), {out / r, r, in / r, r});
      return add(y, affine(x, reshape(add(product, reshape(d, {out / r, r, 1, r})), {out, in})));
    }
    auto z = reshape(graft::dropout(x, dropout_), {rows, in});
    const Index chunks = (in + r - 1) / r;
    if (chunks * r != in)
      z = concat_along(1, std::vector<BasicVar<T>>{
                              z, tape.constant(BasicTensor<T>::zeros({rows, chunks * r - in}))});
    auto delta = matmul(sum_axis(reshape(z, {rows, chunks, r}), 1), d);
    if (d.cols() != out)
      delta = broadcast_to(reshape(delta, {rows, 1, d.cols()}), {rows, out / d.cols(), d.cols()});
    return add(y, reshape(delta, y.shape()));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    list.push_back({.name = "miss_block", .parameter = block_, .index = {}, .file_shape = {}});
    return list;
  }

 private:
  Index rank_;
  double dropout_;
  bool bat_;
  BasicParameter<T> block_;
};

using MiSS = BasicMiSS<float>;

}  // namespace graft::inline v0_1
