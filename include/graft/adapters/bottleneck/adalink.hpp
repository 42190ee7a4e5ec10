#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "graft/adapters/sublayer.hpp"

namespace graft::inline v0_1 {

/// Configuration of AdaLink.
struct AdaLinkConfig {
  Index rank = 64;
  Index num_modalities = 1;
  std::string non_linearity = "identity";
  TargetModules target_modules = {};  ///< embeddings; none: the first of the model
  Selection select = {};

  static constexpr const char* kPeftType = "ADALINK";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("num_modalities", num_modalities);
    v("non_linearity", non_linearity);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for sizes below one or an unknown activation.
  void validate() const {
    if (rank < 1 || num_modalities < 1)
      throw ValueError(concat("AdaLink: r ", rank, ", num_modalities ", num_modalities,
                              ", expected at least 1"));
    detail::require_activation("AdaLink", non_linearity);
  }
};

/// AdaLink: e' = e + φ(e D_mᵀ) U_mᵀ for the embeddings e of tokens of modality m, others unchanged.
/// The transformer stays as it is.
///
/// D_m: [r, d], U_m: [d, r]; trained: 2 d r a modality. The identity at the start (U = 0). Which
/// modality a token has comes with the batch; without it all have the first. With one modality it
/// merges into the table. Source: Wang et al. 2023 (arXiv:2310.12100), section 3. Tensors:
/// `adalink_down.<m>.weight`, `adalink_up.<m>.weight`.
template <std::floating_point T>
class BasicAdaLink {
 public:
  using Scalar = T;

  BasicAdaLink(const AdaLinkConfig& config, const EmbeddingSiteInfo<T>& site,
               InitContext<T>& context)
      : activation_(config.non_linearity) {
    for (Index m = 0; m < config.num_modalities; ++m) {
      down_.push_back(detail::fresh<T>(
          context, {config.rank, site.dim},
          [](TorchGenerator& g, BasicTensor<T>& t) { g.normal(t.data(), t.size(), 0, 0.02); }));
      up_.push_back(detail::constant<T>({site.dim, config.rank}, 0));
    }
  }
  template <class Base>
  BasicVar<T> apply(const Base& base, BasicTape<T>& tape, std::span<const std::int32_t> ids) const {
    const auto e = base(tape, ids);
    const auto count = static_cast<Index>(ids.size());
    const auto* context = tape.template context<ForwardContext>();
    const bool given = context != nullptr && !context->modality.empty();
    if (given && static_cast<Index>(context->modality.size()) != count)
      throw ShapeError(
          concat("AdaLink: ", context->modality.size(), " modalities for ", count, " tokens"));
    auto y = e;
    for (std::size_t m = 0; m < down_.size(); ++m) {
      if (!given && m > 0) break;
      auto change = matmul(
          detail::apply_activation(
              activation_, matmul(e, tape.parameter(down_[m]), Transpose::no, Transpose::yes)),
          tape.parameter(up_[m]), Transpose::no, Transpose::yes);
      if (given) {
        auto mask = BasicTensor<T>::empty({count, 1});
        for (Index i = 0; i < count; ++i)
          mask[i] = context->modality[static_cast<std::size_t>(i)] == static_cast<std::int64_t>(m)
                        ? T{1}
                        : T{0};
        change = mul(change, tape.constant(mask));
      }
      y = add(y, change);
    }
    return y;
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    for (std::size_t m = 0; m < down_.size(); ++m) {
      list.push_back(detail::named(concat("adalink_down.", m, ".weight"), down_[m]));
      list.push_back(detail::named(concat("adalink_up.", m, ".weight"), up_[m]));
    }
    return list;
  }
  std::string merge_reason() const {
    return down_.size() == 1 ? "" : "the map depends on the modality of a token";
  }

 private:
  std::string activation_;
  std::vector<BasicParameter<T>> down_, up_;
};

template <std::floating_point T>
struct AdaLinkMethod {
  using Scalar = T;
  using Config = AdaLinkConfig;
  static constexpr bool kByRole = true;
  static MethodInfo info() {
    return {.peft_type = "ADALINK",
            .name = "AdaLink",
            .family = "bottleneck",
            .paper = "arXiv:2310.12100",
            .sites = "embedding",
            .parameters = "2 out r num_modalities",
            .in_peft = false};
  }
  static std::shared_ptr<EmbeddingPart<T>> embedding(const Config& config,
                                                     const EmbeddingSiteInfo<T>& site,
                                                     InitContext<T>& context) {
    const bool first = site.all_embeddings.empty() || site.all_embeddings[0].first == site.path;
    if (config.target_modules.empty() && !first) return nullptr;
    return embedding_part(BasicAdaLink<T>(config, site, context));
  }
};

}  // namespace graft::inline v0_1
