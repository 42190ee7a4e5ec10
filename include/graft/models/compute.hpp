#pragma once

#include <string_view>

#include "graft/layers/dense_linear.hpp"
#include "graft/layers/quantized_linear.hpp"
#include "graft/models/model.hpp"

namespace graft::inline v0_1::models {

/// The way to multiply that a setting names: f32, bf16, f32-split, or auto, which is bf16 where the
/// processor has it fast and else f32. @throws ValueError for another name
inline kernels::Compute compute_named(std::string_view name) {
  using kernels::Compute;
  if (name == "f32") return Compute::f32;
  if (name == "bf16") return Compute::bf16;
  if (name == "f32-split") return Compute::f32_split;
  if (name == "auto") return kernels::bf16_is_fast() ? Compute::bf16 : Compute::f32;
  throw ValueError(concat("compute: expected auto, f32, bf16 or f32-split, got '", name, "'"));
}

/// Sets how the frozen linear layers of a model multiply, head included, forward and for the
/// gradient of the input, and with bf16 its attention, too. Returns how many layers were set.
///
/// With Compute::bf16 the factors of these products are rounded to bf16 and their sums stay f32;
/// with Compute::f32_split each is the sum of two bf16 values, where kernels::splits_f32(). Weights
/// stay in memory as they are. Adapters, norms, softmax and optimiser stay f32. Call it before
/// adapters are added: a base that an adapter's init rewrites is a new layer, in f32. Layers of a
/// class of one's own are left alone.
inline Index set_compute(BasicModel<float>& model, kernels::Compute compute) {
  Index count = 0;
  for (auto* site : model.sites().linear) {
    if (const auto* quantised = site->base().as<QuantizedLinear>()) {
      site->set_base(quantised->with_compute(compute));
    } else if (const auto* dense = site->base().as<DenseLinear>()) {
      site->set_base(dense->with_compute(compute));
    } else {
      continue;
    }
    ++count;
  }
  for (auto* site : model.sites().attention) site->compute = compute;
  return count;
}

/// The way to take the input of products of few rows that a setting names: f32, int8, or auto,
/// which is int8. @throws ValueError for another name
inline Activations activations_named(std::string_view name) {
  if (name == "f32") return Activations::f32;
  if (name == "int8" || name == "auto") return Activations::int8;
  throw ValueError(concat("activations: expected auto, int8 or f32, got '", name, "'"));
}

/// Sets how the frozen quantised layers of a model take the input of products of up to 8 rows: what
/// generation is made of. Returns how many of them were set, those for whose format there is a
/// product in 8 bits. As with set_compute, call it before adapters are added.
inline Index set_activations(BasicModel<float>& model, Activations activations) {
  Index count = 0;
  for (auto* site : model.sites().linear) {
    const auto* quantised = site->base().as<QuantizedLinear>();
    if (quantised == nullptr ||
        quant::int8_dot(quantised->format(), quantised->in_features()) == nullptr)
      continue;
    site->set_base(quantised->with_activations(activations));
    ++count;
  }
  return count;
}

}  // namespace graft::inline v0_1::models
