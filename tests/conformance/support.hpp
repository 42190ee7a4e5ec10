#pragma once

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "graft/adapters/config_value.hpp"
#include "graft/compose/config_json.hpp"
#include "graft/fwd.hpp"
#include "graft/io/json.hpp"
#include "graft/io/safetensors.hpp"
#include "graft/tensor/tensor.hpp"
#include "graft/tensor/transposed.hpp"

/// What the parts of the conformance program share.
namespace conformance {

using graft::BasicTensor;
using graft::concat;
using graft::Index;
using graft::Shape;
using graft::io::Json;
using graft::io::SafetensorsFile;

enum class Status { pass, fail, unsupported };

/// Outcome of one case.
struct Result {
  std::string name;
  Status status = Status::pass;
  double max_abs = 0;
  double max_rel = 0;  ///< max |a − b| / max |b| of the worst quantity, relative to its tolerance
  std::string worst;
  double tolerance = 0;
  std::string reason;
  std::vector<std::string> notes;  ///< what was not compared
};

/// Settings of the program that runners look at.
struct Settings {
  bool f64 = false;  ///< also run layer cases in double precision
};
inline Settings& settings() {
  static Settings instance;
  return instance;
}

/// Thrown by a case that asks for what graft does not have.
struct Unsupported {
  std::string reason;
};

/// One case on disk.
struct Case {
  std::string name;  ///< path below the folder of cases
  std::filesystem::path folder;
  std::filesystem::path root;
  Json json;
};

/// Gathers the errors of one case.
class Checker {
 public:
  explicit Checker(double tolerance) : tolerance_(tolerance) { result_.tolerance = tolerance; }

  /// Compares max |a − b| / max |b| with the tolerance (or another one).
  template <class A, class B>
  void compare(const std::string& quantity, const A& found, const B& expected,
               double tolerance = -1) {
    const double limit = tolerance < 0 ? tolerance_ : tolerance;
    if (static_cast<std::size_t>(found.size()) != static_cast<std::size_t>(expected.size())) {
      fail(quantity, concat(quantity, ": ", found.size(), " values, expected ", expected.size()));
      return;
    }
    double error = 0, scale = 0;
    bool finite = true;
    for (std::size_t i = 0; i < static_cast<std::size_t>(expected.size()); ++i) {
      const auto at = static_cast<decltype(found.size())>(i);
      const double a = static_cast<double>(found[static_cast<std::size_t>(at)]),
                   b = static_cast<double>(expected[i]);
      if (!std::isfinite(a)) finite = false;
      error = std::max(error, std::abs(a - b));
      scale = std::max(scale, std::abs(b));
    }
    const double relative = scale > 0 ? error / scale : error;
    add(quantity, error, finite ? relative : INFINITY, limit);
  }
  /// A quantity that is zero in exact arithmetic, beside others of size `scale`.
  template <class A>
  void small(const std::string& quantity, const A& found, double scale) {
    double error = 0;
    for (const auto& v : found) error = std::max(error, std::abs(static_cast<double>(v)));
    add(quantity, error, scale > 0 ? error / scale : error, tolerance_);
  }
  void note(std::string text) { result_.notes.push_back(std::move(text)); }
  /// Takes over what another checker found; a failure of it is a failure of this one.
  void merge(const Result& other, const std::string& name) {
    if (other.worst.empty() && other.status == Status::pass) return;
    if (other.status == Status::fail) fail(name + other.worst, name + other.reason);
    if (other.tolerance > 0) add(name + other.worst, other.max_abs, other.max_rel, other.tolerance);
  }
  void add(const std::string& quantity, double error, double relative, double limit) {
    const double share = relative / std::max(limit, 1e-30);
    if (share >= worst_share_ || result_.worst.empty()) {
      worst_share_ = share;
      result_.worst = quantity;
      result_.max_rel = relative;
      result_.max_abs = error;
      result_.tolerance = limit;
    }
    if (!(relative <= limit)) {
      result_.status = Status::fail;
      if (result_.reason.empty()) result_.reason = concat(quantity, " off by ", relative);
    }
  }
  void fail(const std::string& quantity, const std::string& reason) {
    result_.status = Status::fail;
    if (result_.reason.empty()) result_.reason = reason;
    if (result_.worst.empty()) result_.worst = quantity;
  }
  void require(bool ok, const std::string& what) {
    if (!ok) fail(what, what);
  }
  double tolerance() const { return tolerance_; }
  bool passing() const { return result_.status == Status::pass; }
  const Result& result() const { return result_; }

 private:
  double tolerance_;
  double worst_share_ = -1;
  Result result_;
};

template <class T>
std::vector<double> values_of(const BasicTensor<T>& t) {
  return std::vector<double>(t.begin(), t.end());
}

/// A tensor of a file as T; an empty one if it is not there.
template <class T>
BasicTensor<T> tensor_of(const SafetensorsFile& file, const std::string& name) {
  const auto* view = file.find(name);
  if (view == nullptr) return {};
  return BasicTensor<T>::from(graft::io::to_f64(*view),
                              Shape(view->shape.begin(), view->shape.end()));
}
inline std::vector<std::int32_t> ids_of(const SafetensorsFile& file, const std::string& name) {
  std::vector<std::int32_t> ids;
  if (const auto* view = file.find(name))
    for (std::int64_t id : graft::io::to_i64(*view)) ids.push_back(static_cast<std::int32_t>(id));
  return ids;
}
/// Inputs and expected results of a case.
inline SafetensorsFile tensors_of(const Case& c) {
  return SafetensorsFile::open(c.folder / "case.safetensors");
}
inline Json config_of(const Case& c) {
  return graft::io::read_json(c.folder / "adapter_config.json");
}
/// The configuration of a case. @throws ValueError for values that the method refuses
template <class Config>
Config read_config_of(const Case& c) {
  const auto map = graft::read_config_file(c.folder / "adapter_config.json");
  Config config;
  graft::ConfigReader reader(map);
  config.fields(reader);
  if constexpr (requires { config.validate(); }) config.validate();
  return config;
}
/// Part i of a tensor along its first axis, or part (i, j) along the first two.
/// @throws IoError if the tensor has no such part
template <class T>
BasicTensor<T> part(const BasicTensor<T>& t, Index i) {
  if (!t || t.rank() < 1 || i < 0 || i >= t.dim(0))
    throw graft::IoError(concat("a tensor of the case has no part ", i));
  Shape shape;
  for (int axis = 1; axis < t.rank(); ++axis) shape.append(t.dim(axis));
  auto result = BasicTensor<T>::empty(shape);
  std::copy_n(t.data() + i * result.size(), result.size(), result.data());
  return result;
}
template <class T>
BasicTensor<T> part(const BasicTensor<T>& t, Index i, Index j) {
  return part(part(t, i), j);
}
inline double tolerance_of(const Json& json) { return json.value("tolerance", 1e-5); }

/// Runners of the kinds of cases.
Result run_layer_case(const Case& c);
void run_layer_in_double(Checker& check, const Case& c);
Result run_init_case(const Case& c);
Result run_multi_case(const Case& c);
Result run_combination_case(const Case& c);
Result run_conversion_case(const Case& c);
Result run_model_case(const Case& c);
Result run_real_case(const Case& c);
Result run_quant_case(const Case& c);
Result run_tokenizer_case(const Case& c);
/// `prepare` is told the adapters once they are loaded, `inspect` after the pass whose loss is
/// compared.
Result run_method_model_case(
    const Case& c, const std::function<void(graft::BasicAdapterModel<float>&)>& prepare = {},
    const std::function<void(Checker&, graft::BasicAdapterModel<float>&)>& inspect = {});

}  // namespace conformance
