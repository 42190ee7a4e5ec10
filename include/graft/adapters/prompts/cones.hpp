#pragma once

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/prompts/unit_rows.hpp"

namespace graft::inline v0_1 {

/// Configuration of concept embedding search.
struct ConesConfig {
  Index num_concepts = 1;
  std::string consumer = "classifier";  ///< classifier, cross_attention; for the record
  double temperature = 1;               ///< factor of the cosine

  static constexpr const char* kPeftType = "CONES";

  template <class Visitor>
  void fields(Visitor& v) {
    v("num_concepts", num_concepts);
    v("consumer", consumer);
    v("temperature", temperature);
  }
  /// @throws ValueError without concepts or for an unknown consumer.
  void validate() const {
    if (num_concepts < 1) throw ValueError(concat("ConES: num_concepts ", num_concepts));
    if (consumer != "classifier" && consumer != "cross_attention")
      throw ValueError(
          concat("ConES: consumer '", consumer, "', expected classifier or cross_attention"));
  }
};

/// Concept embedding search: what a text encoder would give, as a free tensor C [concepts, width]
/// that a frozen consumer reads.
///
/// Trained: concepts · width. The same as with the text encoder if C starts as its output. C is the
/// result; nothing to merge. Source: Zhang et al. 2023, arXiv:2305.18993, section 3. Tensor:
/// shared.concept_embeddings.
template <std::floating_point T>
class BasicConceptEmbeddings {
 public:
  using Scalar = T;
  using Config = ConesConfig;

  /// N(0, 0.02).
  BasicConceptEmbeddings(const ConesConfig& config, Index width, InitContext<T>& context)
      : config_((config.validate(), config)),
        concepts_(context.loading ? BasicTensor<T>::zeros({config.num_concepts, width})
                                  : detail::normal_tensor<T>(context.generator,
                                                             {config.num_concepts, width}, 0.02)) {}
  /// From what a text encoder gave. @throws ShapeError for another number of concepts
  BasicConceptEmbeddings(const ConesConfig& config, const BasicTensor<T>& start)
      : config_((config.validate(), config)), concepts_(start.clone()) {
    if (start.shape().rank() != 2 || start.rows() != config.num_concepts)
      throw ShapeError(concat("ConES: embeddings ", start.shape().text(), " for ",
                              config.num_concepts, " concepts"));
  }

  BasicVar<T> embeddings(BasicTape<T>& tape) const { return tape.parameter(concepts_); }
  /// Cosine classifier: τ · norm(x W_vᵀ) norm(C)ᵀ. x: [rows, in], w: [width, in]
  BasicVar<T> classify(const BasicVar<T>& x, const BasicTensor<T>& w) const {
    auto& tape = x.tape();
    const auto v = matmul(x, tape.constant(w), Transpose::no, Transpose::yes);
    return scale(matmul(unit_rows(v), unit_rows(embeddings(tape)), Transpose::no, Transpose::yes),
                 static_cast<T>(config_.temperature));
  }
  /// Cross-attention: x + softmax(x W_qᵀ (C W_kᵀ)ᵀ / √e) C W_vᵀ W_oᵀ. x: [..., in], q: [e, in], k,
  /// v: [e, width], out: [in, e]
  BasicVar<T> attend(const BasicVar<T>& x, const BasicTensor<T>& q, const BasicTensor<T>& k,
                     const BasicTensor<T>& v, const BasicTensor<T>& out) const {
    auto& tape = x.tape();
    const auto through = [&](const BasicVar<T>& input, const BasicTensor<T>& w) {
      return matmul(input, tape.constant(w), Transpose::no, Transpose::yes);
    };
    const auto c = embeddings(tape);
    const T by = static_cast<T>(1 / std::sqrt(static_cast<double>(q.rows())));
    const auto weights =
        softmax(scale(matmul(through(x, q), through(c, k), Transpose::no, Transpose::yes), by));
    return add(x, through(matmul(weights, through(c, v)), out));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    return {{.name = "shared.concept_embeddings",
             .parameter = concepts_,
             .index = {},
             .file_shape = {}}};
  }

 private:
  ConesConfig config_;
  BasicParameter<T> concepts_;
};

using ConceptEmbeddings = BasicConceptEmbeddings<float>;

}  // namespace graft::inline v0_1
