#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/layers/conv.hpp"
#include "graft/layers/multihead_attention.hpp"
#include "support.hpp"

namespace conformance {

using graft::BasicSiteTable;
using graft::BasicVar;

/// What goes into a small module, and the gradients of what comes out. Several independent layers
/// have one entry each; `suffixes` are then ".0", ".1", …, else one empty text.
template <class T>
struct Inputs {
  std::vector<std::string> suffixes;
  std::vector<BasicTensor<T>> x, dy;
  std::vector<std::int32_t> ids;
  Shape ids_shape;
};

/// The small module of a case, built from its description ("fc1 Linear 24→20, tanh, fc2 Linear
/// 20→28") and its tensors. Without a description: one Linear, or fc1 → tanh → fc2.
template <class T>
class Toy {
 public:
  Toy(const Json& description, const SafetensorsFile& tensors, const std::string& single_name) {
    if (description.is_string()) {
      parse(description.get<std::string>(), tensors);
    } else if (tensors.find("weight") != nullptr && tensors.find("weight")->shape.size() == 2) {
      step(Kind::linear, single_name.empty() ? "proj" : single_name);
    } else if (tensors.find("fc1.weight") != nullptr && tensors.find("fc2.weight") != nullptr) {
      step(Kind::linear, "fc1");
      step(Kind::tanh, "");
      step(Kind::linear, "fc2");
    } else {
      throw Unsupported{"no description of the module"};
    }
    for (auto& s : steps_) build(*s, tensors);
    table_.info.architecture = "toy";
  }

  BasicSiteTable<T>& sites() { return table_; }
  bool parallel() const { return parallel_; }
  Inputs<T> inputs(const SafetensorsFile& file) const {
    Inputs<T> in;
    for (std::size_t k = 0; k < (parallel_ ? steps_.size() : 1); ++k) {
      in.suffixes.push_back(parallel_ ? concat(".", k) : std::string());
      in.x.push_back(tensor_of<T>(file, "x" + in.suffixes.back()));
      in.dy.push_back(tensor_of<T>(file, "dy" + in.suffixes.back()));
    }
    in.ids = ids_of(file, "ids");
    if (const auto* view = file.find("ids"))
      in.ids_shape = Shape(view->shape.begin(), view->shape.end());
    const bool takes_ids = !steps_.empty() && steps_.front()->kind == Kind::embedding;
    if (takes_ids ? in.ids.empty() : !in.x[0]) throw Unsupported{"no input of the module"};
    return in;
  }

  /// The outputs; `leaves` receives the inputs that may have gradients.
  std::vector<BasicVar<T>> operator()(graft::BasicTape<T>& tape, const Inputs<T>& in,
                                      std::vector<BasicVar<T>>* leaves = nullptr) const {
    std::vector<BasicVar<T>> outputs;
    if (parallel_) {
      for (std::size_t k = 0; k < steps_.size(); ++k) {
        const auto x = tape.leaf(in.x[k]);
        if (leaves != nullptr) leaves->push_back(x);
        outputs.push_back(run(*steps_[k], x));
      }
      return outputs;
    }
    BasicVar<T> h;
    if (steps_.front()->kind == Kind::embedding) {
      h = (*steps_.front()->embedding)(tape, in.ids);
      Shape shape = in.ids_shape;
      shape.append(h.cols());
      h = reshape(h, shape);
    } else {
      h = tape.leaf(in.x[0]);
      if (leaves != nullptr) leaves->push_back(h);
    }
    for (const auto& s : steps_) h = run(*s, h);
    outputs.push_back(h);
    return outputs;
  }

  /// A frozen tensor by its name in files ("weight", "fc1.bias", "mha.in_proj_weight"), in the
  /// layout of files; empty if there is none.
  BasicTensor<T> frozen(const std::string& name) const {
    for (const auto& s : steps_) {
      const std::string tensor = tensor_of_step(*s, name);
      if (tensor.empty()) continue;
      const bool bias = tensor.ends_with("bias");
      switch (s->kind) {
        case Kind::tanh:
          break;
        case Kind::embedding:
          return tensor == "weight" ? s->embedding->table().dense() : BasicTensor<T>{};
        case Kind::norm:
          return bias ? s->norm->norm().bias : s->norm->norm().weight;
        case Kind::linear:
        case Kind::conv:
          return bias ? s->linear->base().bias() : file_weight(*s, *s->linear);
        case Kind::attention: {
          const auto& site =
              tensor.starts_with("out_proj") ? s->attention->out_proj : s->attention->in_proj;
          return bias ? site.base().bias() : site.base().dense_weight();
        }
        case Kind::experts: {
          std::vector<T> all;
          for (const auto* site : s->experts) {
            const auto w = site->base().dense_weight();
            all.insert(all.end(), w.begin(), w.end());
          }
          const auto w = s->experts[0]->base().dense_weight();
          return BasicTensor<T>::from(all,
                                      {static_cast<Index>(s->experts.size()), w.rows(), w.cols()});
        }
      }
    }
    return {};
  }
  /// Replaces a frozen tensor by one as files hold it; false if there is no such tensor, or none
  /// that can be replaced.
  bool set_frozen(const std::string& name, const BasicTensor<T>& value) {
    for (auto& s : steps_) {
      const std::string tensor = tensor_of_step(*s, name);
      if (tensor != "weight" && tensor != "bias") continue;
      const bool bias = tensor == "bias";
      if (s->linear != nullptr) {
        const auto& base = s->linear->base();
        s->linear->set_base(graft::BasicDenseLinear<T>(
            bias ? base.dense_weight() : as_matrix(*s, value), bias ? value : base.bias()));
      } else if (s->norm != nullptr) {
        auto norm = s->norm->norm();
        (bias ? norm.bias : norm.weight) = value;
        s->norm->set_norm(norm);
      } else if (s->embedding != nullptr && !bias) {
        s->embedding->set_table(graft::BasicEmbeddingTable<T>(value));
      } else {
        continue;
      }
      return true;
    }
    return false;
  }
  std::vector<std::string> names() const {
    std::vector<std::string> list;
    for (const auto& s : steps_)
      if (s->kind != Kind::tanh) list.push_back(s->name);
    return list;
  }

 private:
  enum class Kind { linear, conv, embedding, norm, tanh, attention, experts };
  struct Step {
    Kind kind = Kind::linear;
    std::string name;
    bool in_out = false;
    graft::ConvOptions conv;
    Index groups = 1, padding_index = -1, heads = 1;
    double eps = 1e-5;
    graft::BasicLinearSite<T>* linear = nullptr;
    graft::BasicEmbeddingSite<T>* embedding = nullptr;
    graft::BasicNormSite<T>* norm = nullptr;
    std::unique_ptr<graft::BasicPackedAttention<T>> attention;
    std::vector<graft::BasicLinearSite<T>*> experts;
    std::string parameter;
    BasicTensor<T> gate;
  };

  static std::vector<std::string> split(const std::string& text, char at) {
    std::vector<std::string> list;
    std::string part;
    int depth = 0;
    for (char c : text) {
      depth += c == '[' || c == '(' ? 1 : c == ']' || c == ')' ? -1 : 0;
      if (c == at && depth == 0) {
        if (!part.empty()) list.push_back(std::exchange(part, ""));
      } else {
        part += c;
      }
    }
    if (!part.empty()) list.push_back(part);
    return list;
  }
  /// Whole numbers in a text: "[3, 2]", "3×2", "3".
  static std::vector<Index> numbers(const std::string& text) {
    std::vector<Index> list;
    bool inside = false;
    for (char c : text) {
      const bool digit = c >= '0' && c <= '9';
      if (digit && !inside) list.push_back(0);
      if (digit) list.back() = list.back() * 10 + (c - '0');
      inside = digit;
    }
    return list;
  }

  Step& step(Kind kind, const std::string& name) {
    steps_.push_back(std::make_unique<Step>());
    steps_.back()->kind = kind;
    steps_.back()->name = name;
    return *steps_.back();
  }

  void parse(const std::string& whole, const SafetensorsFile& tensors) {
    const auto refuse = [&] { throw Unsupported{concat("module '", whole, "'")}; };
    if (whole.starts_with("raw parameter ")) {
      if (whole.find("softmax(x·gate)") == std::string::npos) refuse();
      const std::string path = split(whole, ' ').at(2);
      const auto dot = path.rfind('.');
      if (dot == std::string::npos) refuse();
      step(Kind::experts, path.substr(0, dot)).parameter = path.substr(dot + 1);
      return;
    }
    std::string text = whole.substr(0, whole.find(';'));
    if (text.find("…") != std::string::npos) {
      // Independent layers: as many as there are tensors of their names.
      const std::string first = text.substr(0, text.find(' '));
      const auto zero = first.find(".0.");
      if (zero == std::string::npos || text.find("Linear") == std::string::npos) refuse();
      for (int k = 0;; ++k) {
        const std::string name =
            first.substr(0, zero + 1) + std::to_string(k) + first.substr(zero + 2);
        if (tensors.find(name + ".weight") == nullptr) break;
        step(Kind::linear, name);
      }
      parallel_ = true;
      if (steps_.empty()) refuse();
      return;
    }
    for (const auto& part : split(text, ',')) {
      auto w = split(part, ' ');
      if (w.empty()) continue;
      const std::string rest = part.substr(part.find(w[0]) + w[0].size());
      const auto is = [&](const char* word) {
        return std::find(w.begin(), w.end(), word) != w.end();
      };
      const auto layer = [&](Kind kind, const char* type, const char* otherwise) -> Step& {
        std::string name = w[0] == type ? otherwise : w[0];
        if (name.ends_with(":")) name.pop_back();
        return step(kind, name);
      };
      const auto conv = [&]() -> graft::ConvOptions& {
        if (steps_.empty() || steps_.back()->kind != Kind::conv) refuse();
        return steps_.back()->conv;
      };
      if (w[0] == "tanh") {
        step(Kind::tanh, "");
      } else if (is("Conv1D")) {
        layer(Kind::linear, "GPT-2", "proj").in_out = true;
      } else if (is("Linear")) {
        layer(Kind::linear, "Linear", "proj");
      } else if (is("Conv1d") || is("Conv2d") || is("Conv3d")) {
        layer(Kind::conv, is("Conv1d") ? "Conv1d" : is("Conv2d") ? "Conv2d" : "Conv3d", "conv");
      } else if (is("Embedding")) {
        layer(Kind::embedding, "Embedding", "emb");
      } else if (is("LayerNorm") || is("RMSNorm")) {
        layer(Kind::norm, is("LayerNorm") ? "LayerNorm" : "RMSNorm", "norm");
      } else if (is("MultiheadAttention")) {
        layer(Kind::attention, "MultiheadAttention", "mha");
      } else if (steps_.empty()) {
        refuse();
      } else if (w[0] == "kernel") {
        conv().kernel = numbers(rest);
      } else if (w[0] == "stride") {
        conv().stride = numbers(rest);
      } else if (w[0] == "padding") {
        conv().padding = numbers(rest);
      } else if (w[0] == "dilation") {
        conv().dilation = numbers(rest);
      } else if (w[0] == "groups") {
        steps_.back()->groups = numbers(rest).at(0);
      } else if (w[0] == "padding_idx") {
        steps_.back()->padding_index = numbers(rest).at(0);
      } else if (w[0] == "eps") {
        steps_.back()->eps = std::stod(rest);
      } else if (w.size() == 2 && w[1] == "heads") {
        steps_.back()->heads = numbers(part).at(0);
      } else if (w[0] != "no") {  // "no bias", "no padding"
        refuse();
      }
    }
  }

  /// Name of a tensor inside a step, if the step owns `name`: "fc1.weight" is "weight" of fc1; a
  /// lone layer owns plain names too.
  std::string tensor_of_step(const Step& s, const std::string& name) const {
    if (s.kind == Kind::tanh) return "";
    if (!s.name.empty() && name.starts_with(s.name + ".")) return name.substr(s.name.size() + 1);
    if (steps_.size() == 1 && name.find('.') == std::string::npos) return name;
    return "";
  }
  BasicTensor<T> read(const SafetensorsFile& file, const Step& s, const std::string& tensor) const {
    if (file.find(s.name + "." + tensor) != nullptr)
      return tensor_of<T>(file, s.name + "." + tensor);
    return tensor_of<T>(file, tensor);
  }
  BasicTensor<T> as_matrix(const Step& s, const BasicTensor<T>& weight) const {
    if (s.in_out) return transposed(weight);
    if (s.groups > 1) return graft::ungrouped_weight(weight, s.groups);
    return weight.reshape({weight.dim(0), weight.size() / weight.dim(0)});
  }
  BasicTensor<T> file_weight(const Step& s, const graft::BasicLinearSite<T>& site) const {
    const auto w = site.base().dense_weight();
    if (s.in_out) return transposed(w);
    return s.groups > 1 ? graft::grouped_weight(w, s.groups) : w;
  }
  graft::BasicLinearSite<T>* add_linear(const std::string& path, BasicTensor<T> weight,
                                        BasicTensor<T> bias) {
    linears_.push_back(std::make_unique<graft::BasicLinearSite<T>>(
        path, graft::BasicDenseLinear<T>(weight, bias)));
    table_.linear.push_back(linears_.back().get());
    return linears_.back().get();
  }

  void build(Step& s, const SafetensorsFile& file) {
    if (s.kind == Kind::tanh) return;
    if (s.kind == Kind::attention) {
      s.attention = std::make_unique<graft::BasicPackedAttention<T>>(
          s.name, s.heads, read(file, s, "in_proj_weight"), read(file, s, "in_proj_bias"),
          read(file, s, "out_proj.weight"), read(file, s, "out_proj.bias"));
      table_.linear.push_back(&s.attention->in_proj);
      table_.linear.push_back(&s.attention->out_proj);
      return;
    }
    if (s.kind == Kind::experts) {
      const auto weights = read(file, s, s.parameter);
      s.gate = read(file, s, "gate");
      if (!weights || weights.rank() != 3 || !s.gate) throw Unsupported{"experts without weights"};
      const Index count = weights.dim(0), out = weights.dim(1), in = weights.dim(2);
      for (Index e = 0; e < count; ++e) {
        auto w = BasicTensor<T>::empty({out, in});
        std::copy_n(weights.data() + e * out * in, out * in, w.data());
        s.experts.push_back(add_linear(s.name, w, {}));
        s.experts.back()->expert = {s.parameter, e, count};
      }
      return;
    }
    const auto weight = read(file, s, "weight");
    const auto bias = read(file, s, "bias");
    if (!weight) throw Unsupported{concat("no weight for ", s.name)};
    if (s.kind == Kind::embedding) {
      embeddings_.push_back(std::make_unique<graft::BasicEmbeddingSite<T>>(
          s.name, graft::BasicEmbeddingTable<T>(weight)));
      s.embedding = embeddings_.back().get();
      s.embedding->padding_index = s.padding_index;
      table_.embedding.push_back(s.embedding);
    } else if (s.kind == Kind::norm) {
      graft::BasicNorm<T> norm;
      norm.weight = weight;
      norm.bias = bias;
      norm.rms = !bias;
      norm.eps = static_cast<T>(s.eps);
      norms_.push_back(std::make_unique<graft::BasicNormSite<T>>(s.name, norm));
      s.norm = norms_.back().get();
      table_.norm.push_back(s.norm);
    } else {
      s.linear = add_linear(s.name, as_matrix(s, weight), bias);
      s.linear->fan_in_fan_out = s.in_out;
      if (s.kind == Kind::conv) {
        const auto axes = static_cast<std::size_t>(weight.rank() - 2);
        const auto spread = [&](std::vector<Index>& v, Index otherwise) {
          if (v.size() != axes) v.assign(axes, v.empty() ? otherwise : v[0]);
        };
        s.conv.kernel.clear();
        for (int i = 2; i < weight.rank(); ++i) s.conv.kernel.push_back(weight.dim(i));
        spread(s.conv.stride, 1);
        spread(s.conv.padding, 0);
        spread(s.conv.dilation, 1);
        s.linear->conv = {s.conv.kernel, weight.dim(1) * s.groups, s.groups};
      }
    }
  }

  static BasicVar<T> run(const Step& s, const BasicVar<T>& h) {
    switch (s.kind) {
      case Kind::embedding:
        return h;
      case Kind::linear:
        return (*s.linear)(h);
      case Kind::conv:
        return convolution(*s.linear, h, s.conv);
      case Kind::norm:
        return (*s.norm)(h);
      case Kind::tanh:
        return tanh(h);
      case Kind::attention:
        return (*s.attention)(h);
      case Kind::experts:
        break;
    }
    // y = Σ_e softmax(x · gate)_e · up[e] x
    const auto share = softmax(matmul(h, h.tape().constant(s.gate)));
    BasicVar<T> y;
    for (std::size_t e = 0; e < s.experts.size(); ++e) {
      const auto term = mul((*s.experts[e])(h), slice(share, -1, static_cast<Index>(e), 1));
      y = y ? add(y, term) : term;
    }
    return y;
  }

  bool parallel_ = false;
  std::vector<std::unique_ptr<Step>> steps_;
  std::vector<std::unique_ptr<graft::BasicLinearSite<T>>> linears_;
  std::vector<std::unique_ptr<graft::BasicEmbeddingSite<T>>> embeddings_;
  std::vector<std::unique_ptr<graft::BasicNormSite<T>>> norms_;
  BasicSiteTable<T> table_;
};

}  // namespace conformance
