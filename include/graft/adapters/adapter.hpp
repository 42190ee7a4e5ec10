#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/calibration.hpp"
#include "graft/adapters/config_value.hpp"
#include "graft/autograd/ops/elementwise.hpp"
#include "graft/autograd/ops/matmul.hpp"
#include "graft/autograd/ops/reduce.hpp"
#include "graft/autograd/ops/shape.hpp"
#include "graft/base/rng.hpp"
#include "graft/layers/dense_linear.hpp"
#include "graft/layers/linear.hpp"
#include "graft/layers/sites.hpp"

namespace graft::inline v0_1 {

/// Integers that belong to an adapter (positions, masks, assignments); saved, never trained.
struct IndexTensor {
  enum class Type { u8, i16, i32, i64 };
  Shape shape;
  std::vector<std::int64_t> values;
  Type type = Type::i64;  ///< as files hold it
};

/// One entry of an adapter's registry of tensors, the only road for saving, loading, counting and
/// optimising.
template <std::floating_point T>
struct AdapterTensor {
  enum class Scope {
    site,   ///< belongs to one site: files hold it below the site's path
    model,  ///< shared by all sites: files hold it as "base_model." + name
    root,   ///< files hold it under its name alone (prompts)
  };

  std::string name;                    ///< below the site's path, or below "base_model."
  BasicParameter<T> parameter;         ///< the tensor, if it is one of numbers …
  std::shared_ptr<IndexTensor> index;  ///< … or of integers
  bool saved = true;
  bool alias = false;    ///< second name of a tensor that is listed too: read, not written …
  bool written = false;  ///< … unless files have both names
  Scope scope = Scope::site;
  Shape file_shape;        ///< shape in files where it differs (same elements); a scalar shape: no
                           ///< difference
  std::string group = "";  ///< of the optimiser: methods give factors their own learning rate by it

  Index elements() const {
    return parameter ? parameter.size() : static_cast<Index>(index->values.size());
  }
};

namespace detail {

/// An entry of the registry at a site.
template <std::floating_point T>
AdapterTensor<T> named(std::string name, const BasicParameter<T>& parameter);
template <std::floating_point T>
AdapterTensor<T> named(std::string name, std::shared_ptr<IndexTensor> index);
/// One that all sites of an adapter share: "base_model.model.<name>" in files.
template <std::floating_point T>
AdapterTensor<T> model_tensor(const std::string& name, const BasicParameter<T>& parameter);
/// The same as "base_model.model.shared.<name>".
template <std::floating_point T>
AdapterTensor<T> shared_tensor(const std::string& name, const BasicParameter<T>& parameter) {
  return model_tensor("shared." + name, parameter);
}

}  // namespace detail

/// Parameters that several sites of one adapter share (projections, banks), by name. The first site
/// makes them.
template <std::floating_point T>
class SharedParameters {
 public:
  /// The parameter called `name`; `make()` gives its value the first time.
  template <class Make>
  BasicParameter<T> get(const std::string& name, Make&& make, bool trainable = true) {
    auto& entry = parameters_[name];
    if (!entry) entry = BasicParameter<T>(make(), trainable);
    return entry;
  }
  bool contains(const std::string& name) const { return parameters_.contains(name); }
  /// The same for anything else that sites share (index lists).
  template <class Make>
  auto object(const std::string& name, Make&& make) {
    using Object = std::invoke_result_t<Make>;
    auto& entry = objects_[name];
    if (!entry) entry = std::make_shared<Object>(make());
    return std::static_pointer_cast<Object>(entry);
  }

 private:
  std::map<std::string, BasicParameter<T>> parameters_;
  std::map<std::string, std::shared_ptr<void>> objects_;
};

/// What a method is told about the linear site that it is made for.
template <std::floating_point T>
struct LinearSiteInfo {
  std::string path;
  Index in_features = 0;
  Index out_features = 0;
  bool fan_in_fan_out = false;
  ConvGeometry conv;
  ExpertGeometry expert;
  Index nesting = 0;  ///< parameters of the same module that are wrapped after this one
  Index layer = -1;   ///< number in the path, -1 if there is none
  Index layers = 0;   ///< number of layers of the model
  std::vector<std::pair<std::string, Shape>>
      all_sites;  ///< path and [out, in] of every linear site of this adapter, in order
  std::vector<std::pair<std::string, Shape>> all_embeddings;  ///< those before them: [rows, dim]
  /// The frozen weight [out, in] and bias (empty if none), asked for by inits that depend on them.
  /// They are of the dense form of the weight: a quantised base is decoded.
  std::function<BasicTensor<T>()> weight;
  BasicTensor<T> bias;
  /// The same of another site of this adapter, by its path; null outside of a model.
  std::function<BasicTensor<T>(const std::string& path)> weight_at;
  ModelInfo model = {};  ///< of the model, if there is one
  /// Replaces the frozen weight of the base (inits that move a part of W into the adapter). Null
  /// where that cannot be.
  std::function<void(BasicTensor<T>)> replace_weight;

  /// Last part of the path: "q_proj".
  std::string name() const {
    const auto dot = path.rfind('.');
    return dot == std::string::npos ? path : path.substr(dot + 1);
  }
};

/// What a method is told about the embedding site that it is made for.
template <std::floating_point T>
struct EmbeddingSiteInfo {
  std::string path;
  Index vocabulary = 0;
  Index dim = 0;
  Index padding_index = -1;  ///< its row gets no gradient; -1: there is none
  std::function<BasicTensor<T>()> table;
  std::vector<std::pair<std::string, Shape>> all_sites = {};       ///< as for linear sites
  std::vector<std::pair<std::string, Shape>> all_embeddings = {};  ///< of this adapter, in order
};

/// What making an adapter needs besides configuration and site.
template <std::floating_point T>
struct InitContext {
  TorchGenerator& generator;  ///< draws in creation order, as torch's global generator would
  SharedParameters<T>& shared;
  bool loading =
      false;  ///< a checkpoint follows: values need not be drawn, weights not be rewritten
  std::string adapter_name = "default";
  const Calibration<T>* calibration = nullptr;  ///< what inits that look at data need
  /// What is left of a weight in a format of so many bits; null: no such format at hand.
  std::function<BasicTensor<T>(const BasicTensor<T>&, Index bits)> quantise = {};
  /// Ids of a text, with the special tokens that its tokenizer adds, for inits from text; the
  /// second argument names the tokenizer and may be empty. Null: there is none.
  std::function<std::vector<std::int32_t>(const std::string& text, const std::string& tokenizer)>
      tokenize = {};
  /// A tensor of a safetensors file, for inits from other adapters. Null: files are out of reach.
  std::function<BasicTensor<T>(const std::string& path, const std::string& name)> read_tensor = {};
  /// Called when the sites have their parts, before what holds on to parts looks at them:
  /// whoever makes the adapter takes away those in whose place others come.
  std::function<void()> parts_made = {};
};

/// Site description of a layer of one's own, outside of any model.
template <Linear L>
LinearSiteInfo<ScalarOf<L>> site_info(const L& base) {
  LinearSiteInfo<ScalarOf<L>> site;
  site.in_features = base.in_features();
  site.out_features = base.out_features();
  site.weight = [&base] { return weight_of(base); };
  return site;
}

/// What making one adapter for one layer needs, from a seed.
template <std::floating_point T>
class StandaloneInit {
 public:
  explicit StandaloneInit(std::uint64_t seed) : generator_(seed) {}
  InitContext<T>& context() { return context_; }

 private:
  TorchGenerator generator_;
  SharedParameters<T> shared_;
  InitContext<T> context_{generator_, shared_};
};

/// A method for linear sites: owns parameters, not the base, and maps x with any base that is a
/// `Linear`.
template <class A>
concept LinearAdapter = requires(const A& adapter, const BasicDenseLinear<typename A::Scalar>& base,
                                 const BasicVar<typename A::Scalar>& x) {
  { adapter.apply(base, x) } -> std::same_as<BasicVar<typename A::Scalar>>;
  { adapter.tensors() } -> std::same_as<std::vector<AdapterTensor<typename A::Scalar>>>;
};

/// Number of trained elements among the entries; a parameter that occurs twice counts once.
template <std::floating_point T>
Index trainable_elements(const std::vector<AdapterTensor<T>>& tensors);

namespace detail {

/// A base without its bias, for reading off the weight that an adapted layer amounts to.
template <Linear L>
class Biasless {
 public:
  using Scalar = ScalarOf<L>;
  explicit Biasless(const L& base) : weight_(weight_of(base)) {}
  Index in_features() const { return weight_.cols(); }
  Index out_features() const { return weight_.rows(); }
  BasicVar<Scalar> operator()(const BasicVar<Scalar>& x) const {
    return matmul(x, x.tape().constant(weight_), Transpose::no, Transpose::yes);
  }
  const BasicTensor<Scalar>& dense_weight() const { return weight_; }
  BasicTensor<Scalar> bias() const { return {}; }

 private:
  BasicTensor<Scalar> weight_;
};

}  // namespace detail

/// Weight and bias of one layer that computes what base and adapter compute together. The adapter
/// must be affine in x.
///
/// A method may offer `merged_weight(base)` or `merge_reason()`; else the weight is what the
/// adapted layer without bias makes of the identity, exactly the unmerged computation, and the bias
/// what it makes of zero.
/// @throws ValueError if the method cannot merge.
template <class Adapter, Linear L>
BasicDenseLinear<ScalarOf<L>> merge_linear(const L& base, const Adapter& adapter) {
  using T = ScalarOf<L>;
  if constexpr (requires { adapter.merge_reason(); }) {
    if (const std::string reason = adapter.merge_reason(); !reason.empty())
      throw ValueError(concat("merge: ", reason));
  }
  const Index in = base.in_features(), out = base.out_features();
  BasicTape<T> tape({.gradients = false, .training = false, .merging = true});
  const detail::Biasless<L> biasless(base);
  const auto zero = tape.constant(BasicTensor<T>::zeros({1, in}));
  const auto offset = adapter.apply(biasless, zero).value();
  const auto image = adapter.apply(biasless, tape.constant(BasicTensor<T>::identity(in))).value();
  auto w = BasicTensor<T>::empty({out, in});
  for (Index i = 0; i < in; ++i)
    for (Index o = 0; o < out; ++o) w(o, i) = image(i, o) - offset[o];
  const auto base_bias = bias_of(base);
  BasicTensor<T> bias;
  if (base_bias) {
    const BasicDenseLinear<T> with_bias(BasicTensor<T>(biasless.dense_weight()), base_bias);
    bias = adapter.apply(with_bias, zero).value().reshape({out}).clone();
  } else if (std::any_of(offset.begin(), offset.end(), [](T v) { return v != T{0}; })) {
    bias = offset.reshape({out}).clone();
  }
  return BasicDenseLinear<T>(w, bias);
}

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/adapters/impl/adapter_impl.hpp"
#endif
