#pragma once

#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/bottleneck/parallel.hpp"

namespace graft::inline v0_1 {

/// Configuration of MAM adapters: a short prefix in every attention and a scaled parallel adapter
/// beside every feed-forward sublayer.
struct MAMConfig {
  Index num_virtual_tokens = 30;
  Index adapter_dim = 512;
  double scaling = 4;
  std::string non_linearity = "relu";
  Index encoder_hidden_size = 800;  ///< of the network that makes the prefix; 0: the prefix itself
  Selection select = {};

  static constexpr const char* kPeftType = "MAM";

  template <class Visitor>
  void fields(Visitor& v) {
    v("num_virtual_tokens", num_virtual_tokens);
    v("adapter_dim", adapter_dim);
    v("scaling", scaling);
    v("non_linearity", non_linearity);
    v("encoder_hidden_size", encoder_hidden_size);
    select.fields(v);
  }
  /// @throws ValueError for sizes below one or an unknown activation.
  void validate() const {
    if (num_virtual_tokens < 1 || adapter_dim < 1 || encoder_hidden_size < 0)
      throw ValueError(concat("MAM: num_virtual_tokens ", num_virtual_tokens, ", adapter_dim ",
                              adapter_dim, ", expected at least 1"));
    detail::require_activation("MAM", non_linearity);
  }
};

namespace detail {

/// Puts rows [tokens, keys and values side by side] before the keys and values of an attention.
/// @throws ValueError for an attention with a bias or a window.
template <std::floating_point T>
void put_prefix(const char* method, AttentionCall<T>& call, const BasicVar<T>& prefix) {
  if (call.options.bias || call.options.window > 0)
    throw ValueError(concat(method, ": attention with a bias or a window is not supported"));
  const Index batch = call.options.batch, keys = call.k.rows() / batch, tokens = prefix.rows(),
              width = prefix.cols() / 2;
  const auto put = [&](BasicVar<T>& rows, Index column) {
    const auto own = broadcast_to(reshape(slice(prefix, 1, column, width), {1, tokens, width}),
                                  {batch, tokens, width});
    const auto text = reshape(rows, {batch, keys, width});
    rows = reshape(concat_along(1, std::vector<BasicVar<T>>{own, text}),
                   {batch * (tokens + keys), width});
  };
  put(call.k, 0);
  put(call.v, width);
  if (!call.options.key_mask) return;
  const auto& old = *call.options.key_mask;
  auto mask = std::make_shared<std::vector<unsigned char>>();
  for (Index b = 0; b < batch; ++b) {
    mask->insert(mask->end(), static_cast<std::size_t>(tokens), 1);
    mask->insert(mask->end(), old.begin() + b * keys, old.begin() + (b + 1) * keys);
  }
  call.options.key_mask = std::move(mask);
}

}  // namespace detail

/// Keys and values that stand before those of the text, in one attention. They take no positions.
template <std::floating_point T>
class BasicMAMPrefix final : public AttentionPart<T> {
 public:
  BasicMAMPrefix(const MAMConfig& config, const AttentionSiteInfo<T>& site, InitContext<T>& context)
      : tokens_(config.num_virtual_tokens),
        first_(site.layer * 2 * site.kv_heads * site.head_dim),
        width_(site.kv_heads * site.head_dim) {
    const Index all = site.model.layers * 2 * width_, m = config.encoder_hidden_size,
                d = site.model.hidden_size;
    if (first_ + 2 * width_ > all)
      throw ValueError(concat("MAM: attention ", site.path, " is not one of ", site.model.layers,
                              " alike; models with several stacks are not supported"));
    const auto make = [&](const char* name, const Shape& shape, double bound) {
      return context.shared.get(name, [&] {
        auto t = BasicTensor<T>::zeros(shape);
        if (context.loading) return t;
        if (bound > 0)
          context.generator.uniform(t.data(), t.size(), -bound, bound);
        else
          context.generator.normal(t.data(), t.size(), 0, 1);
        return t;
      });
    };
    const auto linear_bound = [](Index in) { return 1 / std::sqrt(static_cast<double>(in)); };
    if (m == 0) {
      raw_ = make("prompt_embeddings", {tokens_, all}, 0);
      return;
    }
    embedding_ = make("prompt_encoder.embedding.weight", {tokens_, d}, 0);
    w0_ = make("prompt_encoder.transform.0.weight", {m, d}, linear_bound(d));
    b0_ = make("prompt_encoder.transform.0.bias", {m}, linear_bound(d));
    w2_ = make("prompt_encoder.transform.2.weight", {all, m}, linear_bound(m));
    b2_ = make("prompt_encoder.transform.2.bias", {all}, linear_bound(m));
  }
  void before(AttentionCall<T>& call) const override {
    detail::put_prefix("MAM", call, values(call.q.tape()));
  }
  std::vector<AdapterTensor<T>> tensors() const override {
    std::vector<AdapterTensor<T>> list;
    const auto put = [&](const char* name, const BasicParameter<T>& p) {
      if (!p) return;
      list.push_back(detail::named(concat("model.", name), p));
      list.back().scope = AdapterTensor<T>::Scope::model;
    };
    put("prompt_embeddings", raw_);
    put("prompt_encoder.embedding.weight", embedding_);
    put("prompt_encoder.transform.0.weight", w0_);
    put("prompt_encoder.transform.0.bias", b0_);
    put("prompt_encoder.transform.2.weight", w2_);
    put("prompt_encoder.transform.2.bias", b2_);
    return list;
  }
  /// Keys and values of this layer side by side, [tokens, 2 width].
  BasicVar<T> values(BasicTape<T>& tape) const {
    if (raw_) return slice(tape.parameter(raw_), 1, first_, 2 * width_);
    const auto times = [&](const BasicVar<T>& x, const BasicVar<T>& w, const BasicVar<T>& b) {
      return add(matmul(x, w, Transpose::no, Transpose::yes), b);
    };
    const auto h =
        tanh(times(tape.parameter(embedding_), tape.parameter(w0_), tape.parameter(b0_)));
    return times(h, slice(tape.parameter(w2_), 0, first_, 2 * width_),
                 slice(tape.parameter(b2_), 0, first_, 2 * width_));
  }

 private:
  Index tokens_, first_, width_;
  BasicParameter<T> raw_, embedding_, w0_, b0_, w2_, b2_;
};

/// MAM adapter (mix and match): [P_K; K] and [P_V; V] in every attention, FFN(u) + s A(u) beside
/// every feed-forward sublayer.
///
/// P: [l, layers · 2 · d], per layer keys then values, or tanh(E A₁ᵀ + a₁) A₂ᵀ + a₂ of that size;
/// trained: 2 layers l d (or the network) + layers (2 d r + r + d). The adapter begins as the
/// identity, the prefix does not. Not mergeable. Source: He et al. 2022 (arXiv:2110.04366), section
/// 4.6. Tensors: prompt_embeddings, or prompt_encoder.{embedding, transform.0, transform.2};
/// adapter_down.{weight, bias}, adapter_up.{weight, bias}.
template <std::floating_point T>
struct MAMMethod {
  using Scalar = T;
  using Config = MAMConfig;
  static constexpr bool kByRole = true;
  static MethodInfo info() {
    return {.peft_type = "MAM",
            .name = "MAM adapter",
            .family = "bottleneck",
            .paper = "arXiv:2110.04366",
            .sites = "attention, hidden",
            .parameters = "; prefix, and 2 d r + r + d, r = adapter_dim",
            .mergeable = false,
            .in_peft = false,
            .identity_at_init = false};
  }
  static std::shared_ptr<HiddenPart<T>> hidden(const Config& config, const HiddenSiteInfo<T>& site,
                                               InitContext<T>& context) {
    if (site.role != HiddenRole::feed_forward) return nullptr;
    ParallelAdapterConfig parallel;
    parallel.adapter_dim = config.adapter_dim;
    parallel.scaling = config.scaling;
    parallel.non_linearity = config.non_linearity;
    return hidden_part(ParallelAdapterMethod<T>::make(parallel, site.width, site.width, context));
  }
  static std::shared_ptr<AttentionPart<T>> attention(const Config& config,
                                                     const AttentionSiteInfo<T>& site,
                                                     InitContext<T>& context) {
    return std::make_shared<BasicMAMPrefix<T>>(config, site, context);
  }
};

}  // namespace graft::inline v0_1
