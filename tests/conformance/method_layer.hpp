#pragma once

#include <map>
#include <string>
#include <utility>

#include "graft/adapters/adapter.hpp"
#include "layer_run.hpp"

/// One layer with one method, outside of any model: for frozen layers that a case does not give as
/// plain weights.
namespace conformance {

/// The tensors of a method by their keys in the checkpoint of a case, which they have taken over.
template <std::floating_point T>
using LoadedTensors = std::map<std::string, graft::BasicParameter<T>>;

/// @throws graft::IoError for a tensor that the checkpoint lacks
template <class Method>
LoadedTensors<typename Method::Scalar> load_tensors(const Case& c, Method& method) {
  using T = typename Method::Scalar;
  const auto saved = SafetensorsFile::open(c.folder / "adapter_model.safetensors");
  LoadedTensors<T> loaded;
  for (const auto& tensor : method.tensors()) {
    const graft::io::TensorView* found = nullptr;
    for (const auto& view : saved.tensors())
      if (view.name.ends_with("." + tensor.name)) found = &view;
    if (found == nullptr) throw graft::IoError(concat("no tensor ", tensor.name));
    tensor.parameter.assign(
        BasicTensor<T>::from(graft::io::to_f64(*found), tensor.parameter.shape()));
    loaded[found->name] = tensor.parameter;
  }
  return loaded;
}

/// Site of a layer, with its weight at hand.
inline graft::LinearSiteInfo<float> site_of(const graft::DenseLinear& layer) {
  graft::LinearSiteInfo<float> site;
  site.path = "fc";
  site.in_features = layer.in_features();
  site.out_features = layer.out_features();
  site.weight = [layer] { return layer.dense_weight(); };
  site.bias = layer.bias();
  return site;
}

/// The gradients of loaded tensors, "grad.<key>" (or another prefix).
template <std::floating_point T>
void compare_tensor_gradients(Checker& check, const SafetensorsFile& file,
                              const LoadedTensors<T>& tensors, const std::string& prefix = "grad.",
                              const Json& json = Json::object()) {
  std::map<std::string, BasicTensor<T>> gradients;
  for (const auto& [key, p] : tensors)
    gradients[key] = p.grad() ? p.grad() : BasicTensor<T>::zeros(p.shape());
  compare_gradients(check, gradients, file, prefix, vanishing_gradients(json));
}

/// y, dx, gradients and the merged weight of a method on a layer.
template <class Method>
void compare_method(Checker& check, const SafetensorsFile& file, const graft::DenseLinear& layer,
                    const Method& method, const LoadedTensors<float>& tensors) {
  {
    graft::Tape tape;
    const auto x = tape.leaf(tensor_of<float>(file, "x"));
    const auto y = method.apply(layer, x);
    check.compare("y", values_of(y.value()), graft::io::to_f64(file.at("y")));
    tape.backward(y, tensor_of<float>(file, "dy"));
    check.compare("dx", values_of(x.grad()), graft::io::to_f64(file.at("dx")));
    compare_tensor_gradients(check, file, tensors);
  }
  if (const auto* merged = file.find("merged_weight"))
    check.compare("merged_weight", values_of(merge_linear(layer, method).dense_weight()),
                  graft::io::to_f64(*merged));
}

}  // namespace conformance
