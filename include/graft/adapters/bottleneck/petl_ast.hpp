#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/bottleneck/bottleneck.hpp"

namespace graft::inline v0_1 {

/// Configuration of the design grid of adapters for audio transformers.
struct PETLASTConfig {
  Index adapter_dim = 64;
  std::string sublayer = "ffn";        ///< "ffn", "attention" or "both"
  std::string insertion = "parallel";  ///< or "serial"
  bool residual = true;                ///< of a serial adapter; false: it replaces the sublayer
  std::string non_linearity = "relu";
  Selection select = {};

  static constexpr const char* kPeftType = "PETL_AST";

  template <class Visitor>
  void fields(Visitor& v) {
    v("adapter_dim", adapter_dim);
    v("sublayer", sublayer);
    v("insertion", insertion);
    v("residual", residual);
    v("non_linearity", non_linearity);
    select.fields(v);
  }
  /// @throws ValueError for a width below one, an unknown activation, sublayer or insertion.
  void validate() const {
    if (adapter_dim < 1)
      throw ValueError(concat("PETL-AST: adapter_dim ", adapter_dim, ", expected at least 1"));
    detail::require_activation("PETL-AST", non_linearity);
    if (sublayer != "ffn" && sublayer != "attention" && sublayer != "both")
      throw ValueError(concat("PETL-AST: sublayer '", sublayer,
                              "', expected \"ffn\", \"attention\" or \"both\""));
    if (insertion != "parallel" && insertion != "serial")
      throw ValueError(
          concat("PETL-AST: insertion '", insertion, "', expected \"parallel\" or \"serial\""));
  }
};

/// One adapter of the grid. Sublayer F with input u: serial R F(u) + A(F(u)), parallel F(u) + A(u);
/// R = 1 with the adapter's own residual, 0 without (serial alone).
///
/// A(h) = φ(h Dᵀ + b_D) Uᵀ + b_U, D: [r, d], U: [d, r]; trained a site: 2 d r + r + d. The identity
/// at the start (U = 0), but for R = 0, where U ~ N(0, 0.02). Not mergeable. Source: Cappellazzo et
/// al. 2024 (arXiv:2312.03694), section 3. Tensors: adapter_down.{weight, bias},
/// adapter_up.{weight, bias}.
template <std::floating_point T>
class BasicPETLAST {
 public:
  using Scalar = T;
  using Module = BasicBottleneck<T>;

  BasicPETLAST(const PETLASTConfig& config, Index width, InitContext<T>& context)
      : serial_(config.insertion == "serial"),
        residual_(!serial_ || config.residual),
        module_(width, width, config.adapter_dim, config.non_linearity,
                residual_ ? Module::Start::zero_up : Module::Start::normal, context) {}
  BasicVar<T> apply(const BasicVar<T>& input, const BasicVar<T>& output, const BasicVar<T>&) const {
    const auto y = module_(serial_ ? output : input);
    return residual_ ? add(output, y) : y;
  }
  std::vector<AdapterTensor<T>> tensors() const { return module_.tensors(); }

 private:
  bool serial_, residual_;
  Module module_;
};

template <std::floating_point T>
struct PETLASTMethod {
  using Scalar = T;
  using Config = PETLASTConfig;
  static constexpr bool kByRole = true;
  static MethodInfo info() {
    return {.peft_type = "PETL_AST",
            .name = "PETL-AST adapter",
            .family = "bottleneck",
            .paper = "arXiv:2312.03694",
            .sites = "hidden",
            .parameters = "2 d r + r + d, r = adapter_dim",
            .mergeable = false,
            .in_peft = false};
  }
  static std::shared_ptr<HiddenPart<T>> hidden(const Config& config, const HiddenSiteInfo<T>& site,
                                               InitContext<T>& context) {
    const std::vector<std::string> placement = config.sublayer == "both"
                                                   ? std::vector<std::string>{"attention", "ffn"}
                                                   : std::vector<std::string>{config.sublayer};
    if (!detail::placed_at(placement, site.role)) return nullptr;
    return hidden_part(BasicPETLAST<T>(config, site.width, context));
  }
};

}  // namespace graft::inline v0_1
