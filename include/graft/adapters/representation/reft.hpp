#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/named_activation.hpp"
#include "graft/adapters/representation/orthonormal_rows.hpp"
#include "graft/adapters/representation/positions.hpp"
#include "graft/adapters/sublayer.hpp"
#include "graft/autograd/ops/edit_rows.hpp"

/// What the ReFT methods have in common (Wu et al. 2024, arXiv:2404.03592): a map Φ of a hidden
/// state to itself that changes r directions of it, at some tokens of the prompt.
namespace graft::inline v0_1 {

enum class ReftKind { loreft, direft, noreft, consreft, lobireft };

/// Configuration of a ReFT method.
template <ReftKind K>
struct ReftConfig {
  static constexpr bool kRows = K == ReftKind::loreft || K == ReftKind::consreft ||
                                K == ReftKind::lobireft;  ///< R has orthonormal rows
  static constexpr bool kStates =
      K == ReftKind::loreft || K == ReftKind::direft || K == ReftKind::noreft;

  Index rank = 4;
  std::vector<Index> layers = {};  ///< blocks; empty: all
  /// block_out: what a block hands to the next one; attention_out, ffn_out: what a sublayer adds to
  /// the residual; linear_out: the outputs of `target_modules`, which mean it by themselves.
  std::string component = "block_out";
  /// "all", every token that is no padding, or the first and last ones of the prompt.
  ConfigValue positions = ConfigValue::Map{{"first", 5}, {"last", 5}};
  bool tied = true;                            ///< one edit for first and last tokens, or one each
  std::optional<std::string> activation = {};  ///< of what is computed from the state; none
  double dropout = 0;        ///< of the whole edited state, while training; the paper: 0.05
  bool orthonormal = false;  ///< DiReFT: W2 has orthonormal rows
  std::string parametrisation = "retraction";  ///< of orthonormal rows: retraction, householder
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = K == ReftKind::loreft     ? "LOREFT"
                                           : K == ReftKind::direft   ? "DIREFT"
                                           : K == ReftKind::noreft   ? "NOREFT"
                                           : K == ReftKind::consreft ? "CONSREFT"
                                                                     : "LOBIREFT";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    nullable_field(v, "layers", layers);
    v("component", component);
    v("positions", positions);
    v("tied", tied);
    if constexpr (kStates) v("activation", activation);
    v("dropout", dropout);
    if constexpr (K == ReftKind::direft) v("orthonormal", orthonormal);
    if constexpr (kRows || K == ReftKind::direft) v("parametrisation", parametrisation);
    v("target_modules", target_modules);
    select.fields(v);
  }
  bool householder() const { return parametrisation == "householder"; }
  /// @throws ValueError for a rank below one, a dropout outside of [0, 1) or an unknown word.
  void validate() const {
    if (rank < 1) throw ValueError(concat(kPeftType, ": r ", rank, ", expected at least 1"));
    if (!(dropout >= 0 && dropout < 1))
      throw ValueError(concat(kPeftType, ": dropout ", dropout, ", expected [0, 1)"));
    if (activation) detail::require_activation(kPeftType, *activation);
    if (component != "block_out" && component != "attention_out" && component != "ffn_out" &&
        component != "linear_out")
      throw ValueError(concat(kPeftType, ": component '", component,
                              "', expected block_out, attention_out, ffn_out or linear_out"));
    if (component == "linear_out" && target_modules.empty())
      throw ValueError(concat(kPeftType, ": component linear_out needs target_modules"));
    if (parametrisation != "retraction" && parametrisation != "householder")
      throw ValueError(concat(kPeftType, ": parametrisation '", parametrisation,
                              "', expected retraction or householder"));
    EditPositions::from(positions);
  }
};

namespace detail {

/// x Wᵀ
template <std::floating_point T>
BasicVar<T> rows_product(const BasicVar<T>& x, const BasicVar<T>& w) {
  return matmul(x, w, Transpose::no, Transpose::yes);
}

template <std::floating_point T>
BasicVar<T> activated(const std::optional<std::string>& name, const BasicVar<T>& x) {
  return name ? apply_activation(*name, x) : x;
}

/// h + (a(h Wᵀ + b) − h Rᵀ) R; W: [r, d], b: [r], R: [r, d]; a: none without a name.
template <std::floating_point T>
BasicVar<T> edited_in_rows(const BasicVar<T>& h, const std::optional<std::string>& activation,
                           const BasicVar<T>& w, const BasicVar<T>& b, const BasicVar<T>& r) {
  if (!activation) return add(h, matmul(add(rows_product(h, sub(w, r)), b), r));
  const auto target = activated(activation, add(rows_product(h, w), b));
  return add(h, matmul(sub(target, rows_product(h, r)), r));
}

/// Uniform in [0, 1), as torch.rand draws.
template <std::floating_point T>
BasicParameter<T> unit_start(Index r, InitContext<T>& context) {
  return fresh<T>(context, {r}, [](TorchGenerator& g, BasicTensor<T>& t) {
    g.uniform(t.data(), t.size(), 0, 1);
  });
}

}  // namespace detail

/// An edit Φ at the tokens that a configuration means: `Edit` is a map of the tape of states [n, d]
/// to states, made from (config, d, context), with `tensors()`: names and parameters.
///
/// States that are not edited keep their bits. The tensors are reft_<name>, untied
/// reft_prefix_<name> and reft_suffix_<name>; `all` has but one edit. Dropout acts on the whole
/// edited state.
template <class Edit>
class BasicReft {
 public:
  using Scalar = typename Edit::Scalar;
  using Config = typename Edit::Config;
  using T = Scalar;

  BasicReft(const Config& config, Index width, InitContext<T>& context)
      : positions_(EditPositions::from(config.positions)), dropout_(config.dropout) {
    config.validate();
    edits_.emplace_back(config, width, context);
    if (!config.tied && !positions_.all) edits_.emplace_back(config, width, context);
  }
  /// For a linear layer, whose output is edited.
  BasicReft(const Config& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : BasicReft(config, site.out_features, context) {}

  /// Numbers that the edited states of the next passes in training are multiplied with in place of
  /// a dropout: one row for each state of the input. An empty tensor: random ones again.
  void set_dropout_mask(BasicTensor<T> mask) { mask_ = std::move(mask); }

  /// h: [..., d], seen as [batch, tokens, d].
  BasicVar<T> edit(const BasicVar<T>& h) const {
    const auto* context = h.tape().template context<ForwardContext>();
    const Index count = h.rows(), batch = batch_of(h, context);
    const auto rows = edited_rows(positions_, context, batch, count / batch);
    const auto states = reshape(h, {count, h.cols()});
    std::vector<Index> index = rows.prefix;
    index.insert(index.end(), rows.suffix.begin(), rows.suffix.end());
    if (index.empty()) return h;
    if (positions_.all && std::ssize(index) == count)
      return reshape(dropped(edits_[0](states), index), h.shape());
    BasicVar<T> edited;
    if (edits_.size() == 1) {
      edited = edits_[0](gather_rows(states, index));
    } else {
      std::vector<BasicVar<T>> parts;
      if (!rows.prefix.empty()) parts.push_back(edits_[0](gather_rows(states, rows.prefix)));
      if (!rows.suffix.empty()) parts.push_back(edits_[1](gather_rows(states, rows.suffix)));
      edited = concat_along(0, parts);
    }
    edited = dropped(edited, index);
    return reshape(replace_rows(states, std::move(index), edited), h.shape());
  }
  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    return edit(linear(base, x));
  }
  BasicVar<T> apply(const BasicVar<T>&, const BasicVar<T>& output, const BasicVar<T>&) const {
    return edit(output);
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    const char* const names[] = {"reft_prefix_", "reft_suffix_"};
    for (std::size_t i = 0; i < edits_.size(); ++i)
      for (auto& [name, parameter] : edits_[i].tensors())
        list.push_back(detail::named((edits_.size() == 1 ? "reft_" : names[i]) + name, parameter));
    return list;
  }
  std::string merge_reason() const {
    if (!positions_.all) return "the edit depends on the position of a token";
    return edits_[0].affine() ? "" : "an edit with an activation is not linear";
  }

 private:
  static Index batch_of(const BasicVar<T>& h, const ForwardContext* context) {
    const Index batch = context != nullptr      ? context->batch
                        : h.shape().rank() == 3 ? h.dim(0)
                                                : Index{1};
    if (batch < 1 || h.rows() % batch != 0)
      throw ShapeError(
          concat("edit of hidden states: ", h.shape().text(), " for a batch of ", batch));
    return batch;
  }
  BasicVar<T> dropped(const BasicVar<T>& edited, const std::vector<Index>& index) const {
    if (!mask_ || !edited.tape().training()) return graft::dropout(edited, dropout_);
    const auto mask = mask_.reshape({mask_.size() / edited.cols(), edited.cols()});
    return mul(edited, gather_rows(edited.tape().constant(mask), index));
  }

  EditPositions positions_;
  double dropout_;
  std::vector<Edit> edits_;
  BasicTensor<T> mask_;
};

/// What the descriptors of ReFT methods share: edits at the ends of blocks or sublayers, or of the
/// outputs of linear layers.
template <class Edit>
struct ReftMethodBase {
  using Scalar = typename Edit::Scalar;
  using T = Scalar;
  using Config = typename Edit::Config;
  static constexpr bool kByRole = true;

  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    if (config.target_modules.empty() || !takes(config, site.layer)) return nullptr;
    return linear_part(BasicReft<Edit>(config, site.out_features, context));
  }
  static std::shared_ptr<HiddenPart<T>> hidden(const Config& config, const HiddenSiteInfo<T>& site,
                                               InitContext<T>& context) {
    if (!config.target_modules.empty() || !takes(config, site.layer)) return nullptr;
    const auto role = config.component == "block_out"       ? HiddenRole::block
                      : config.component == "attention_out" ? HiddenRole::attention
                                                            : HiddenRole::feed_forward;
    // A prompt is what the encoder of a pair reads.
    const bool answers = site.model.encoder_decoder && site.path.starts_with("decoder");
    if (site.role != role || answers) return nullptr;
    return hidden_part(BasicReft<Edit>(config, site.width, context));
  }

 private:
  static bool takes(const Config& config, Index layer) {
    const auto& layers = config.layers;
    return layers.empty() || std::find(layers.begin(), layers.end(), layer) != layers.end();
  }
};

/// The same with orthonormal rows in the tensor `R`, which are retracted after each step.
template <class Edit>
struct ReftRowsMethod : ReftMethodBase<Edit> {
  using T = typename Edit::Scalar;
  static std::unique_ptr<Procedure<T>> procedure(const typename Edit::Config& config,
                                                 const std::vector<PlacedPart<T>>& parts) {
    if (config.householder()) return nullptr;
    return std::make_unique<RetractRows<T>>(parts, "_R");
  }
};

}  // namespace graft::inline v0_1
