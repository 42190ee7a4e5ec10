#pragma once

#include <memory>
#include <string>
#include <vector>

#include "graft/layers/conv.hpp"
#include "support.hpp"

namespace conformance {

using graft::BasicSiteTable;
using graft::BasicVar;

/// The small module of a case, built from its description ("fc1 Linear 24→20, tanh, fc2 Linear
/// 20→28") and its tensors.
template <class T>
class Toy {
 public:
  Toy(const std::string& description, const SafetensorsFile& tensors) {
    parse(description);
    for (auto& step : steps_) build(step, tensors);
    table_.info.architecture = "toy";
  }

  BasicSiteTable<T>& sites() { return table_; }
  bool takes_ids() const { return !steps_.empty() && steps_.front().kind == Kind::embedding; }

  BasicVar<T> operator()(graft::BasicTape<T>& tape, const BasicTensor<T>& x,
                         const std::vector<std::int32_t>& ids, const Shape& ids_shape,
                         BasicVar<T>* input) const {
    BasicVar<T> h;
    if (takes_ids()) {
      h = (*steps_.front().embedding)(tape, ids);
      Shape shape = ids_shape;
      shape.append(h.cols());
      h = reshape(h, shape);
    } else {
      h = tape.leaf(x);
      if (input != nullptr) *input = h;
    }
    for (const Step& step : steps_) {
      switch (step.kind) {
        case Kind::embedding:
          break;
        case Kind::linear:
          h = (*step.linear)(h);
          break;
        case Kind::conv:
          h = convolution(*step.linear, h, step.conv);
          break;
        case Kind::norm:
          h = (*step.norm)(h);
          break;
        case Kind::tanh:
          h = tanh(h);
          break;
        case Kind::attention:
          h = attention_step(step, h);
          break;
      }
    }
    return h;
  }

  /// Shape in files of the merged weight of a site, from [out, in].
  BasicTensor<T> file_weight(const std::string& path) const {
    for (const Step& step : steps_) {
      if (step.kind == Kind::embedding && step.name == path) return step.embedding->table().dense();
      if (step.linear == nullptr || step.linear->path() != path) continue;
      auto w = step.linear->base().dense_weight();
      if (!step.linear->fan_in_fan_out) return w;
      auto t = BasicTensor<T>::empty({w.cols(), w.rows()});
      for (Index i = 0; i < w.rows(); ++i)
        for (Index j = 0; j < w.cols(); ++j) t(j, i) = w(i, j);
      return t;
    }
    return {};
  }
  /// Replaces the frozen weight of a site by one as files hold it.
  void set_weight(const std::string& path, const BasicTensor<T>& weight) {
    for (Step& step : steps_)
      if (step.linear != nullptr && step.linear->path() == path)
        step.linear->set_base(
            graft::BasicDenseLinear<T>(as_matrix(step, weight), step.linear->base().bias()));
  }
  std::vector<std::string> paths() const {
    std::vector<std::string> list;
    for (const Step& step : steps_)
      if (step.kind != Kind::tanh) list.push_back(step.name);
    return list;
  }
  /// True if tensors of the only layer carry no path.
  bool single() const { return paths().size() == 1; }

 private:
  enum class Kind { linear, conv, embedding, norm, tanh, attention };
  struct Step {
    Kind kind = Kind::linear;
    std::string name;
    bool in_out = false;
    graft::ConvOptions conv;
    Index groups = 1, padding_index = -1, heads = 1;
    graft::BasicLinearSite<T>* linear = nullptr;
    graft::BasicLinearSite<T>* output = nullptr;
    graft::BasicEmbeddingSite<T>* embedding = nullptr;
    graft::BasicNormSite<T>* norm = nullptr;
  };

  static std::vector<std::string> words(const std::string& text) {
    std::vector<std::string> list;
    std::string word;
    for (char c : text + " ") {
      if (c != ' ')
        word += c;
      else if (!word.empty())
        list.push_back(std::exchange(word, ""));
    }
    return list;
  }

  void parse(const std::string& description) {
    std::string part;
    std::vector<std::string> parts;
    for (char c : description + ",") {
      if (c != ',')
        part += c;
      else
        parts.push_back(std::exchange(part, ""));
    }
    for (const auto& text : parts) {
      const auto w = words(text);
      if (w.empty()) continue;
      const auto number = [&](std::size_t i) { return static_cast<Index>(std::stol(w.at(i))); };
      const auto has = [&](const char* word) {
        return std::find(w.begin(), w.end(), word) != w.end();
      };
      const auto layer = [&](Kind kind, const char* type, const char* name) {
        Step step;
        step.kind = kind;
        step.name = w[0] == type ? name : w[0];
        steps_.push_back(step);
      };
      if (w[0] == "tanh") {
        steps_.push_back({});
        steps_.back().kind = Kind::tanh;
      } else if (has("Conv1D")) {
        layer(Kind::linear, "GPT-2", "proj");
        steps_.back().in_out = true;
      } else if (has("Linear")) {
        layer(Kind::linear, "Linear", "proj");
      } else if (has("Conv1d") || has("Conv2d") || has("Conv3d")) {
        const char* type = has("Conv1d") ? "Conv1d" : has("Conv2d") ? "Conv2d" : "Conv3d";
        layer(Kind::conv, type, "conv");
      } else if (has("Embedding")) {
        layer(Kind::embedding, "Embedding", "emb");
      } else if (has("LayerNorm") || has("RMSNorm")) {
        layer(Kind::norm, has("LayerNorm") ? "LayerNorm" : "RMSNorm", "norm");
      } else if (w[0] == "MultiheadAttention") {
        layer(Kind::attention, "MultiheadAttention", "mha");
      } else if (steps_.empty()) {
        throw Unsupported{concat("module '", description, "'")};
      } else if (w[0] == "kernel") {
        steps_.back().conv.kernel = {number(1)};
      } else if (w[0] == "stride") {
        steps_.back().conv.stride = {number(1)};
      } else if (w[0] == "padding") {
        steps_.back().conv.padding = {number(1)};
      } else if (w[0] == "dilation") {
        steps_.back().conv.dilation = {number(1)};
      } else if (w[0] == "groups") {
        steps_.back().groups = number(1);
      } else if (w[0] == "padding_idx") {
        steps_.back().padding_index = number(1);
      } else if (w.size() == 2 && w[1] == "heads") {
        steps_.back().heads = number(0);
      } else if (w[0] != "no" && w[0] != "in" && w[0].find("out]") == std::string::npos) {
        throw Unsupported{concat("module '", description, "'")};
      }
    }
  }

  std::string tensor_name(const SafetensorsFile& file, const Step& step,
                          const std::string& tensor) const {
    return file.find(step.name + "." + tensor) != nullptr ? step.name + "." + tensor : tensor;
  }
  BasicTensor<T> as_matrix(const Step& step, const BasicTensor<T>& weight) const {
    if (step.in_out) {
      auto w = BasicTensor<T>::empty({weight.dim(1), weight.dim(0)});
      for (Index i = 0; i < w.rows(); ++i)
        for (Index j = 0; j < w.cols(); ++j) w(i, j) = weight(j, i);
      return w;
    }
    if (step.groups > 1) return ungrouped_weight(weight, step.groups);
    return weight.reshape({weight.dim(0), weight.size() / weight.dim(0)});
  }
  graft::BasicLinearSite<T>* add_linear(const std::string& path, BasicTensor<T> weight,
                                        BasicTensor<T> bias) {
    linears_.push_back(std::make_unique<graft::BasicLinearSite<T>>(
        path, graft::BasicDenseLinear<T>(weight, bias)));
    table_.linear.push_back(linears_.back().get());
    return linears_.back().get();
  }

  void build(Step& step, const SafetensorsFile& file) {
    if (step.kind == Kind::tanh) return;
    if (step.kind == Kind::attention) {
      step.linear = add_linear("mha", tensor_of<T>(file, "mha.in_proj_weight"),
                               tensor_of<T>(file, "mha.in_proj_bias"));
      step.output = add_linear("mha.base_layer.out_proj", tensor_of<T>(file, "mha.out_proj.weight"),
                               tensor_of<T>(file, "mha.out_proj.bias"));
      step.output->target_path = "mha";
      return;
    }
    const auto weight = tensor_of<T>(file, tensor_name(file, step, "weight"));
    const auto bias = tensor_of<T>(file, tensor_name(file, step, "bias"));
    if (!weight) throw Unsupported{concat("no weight for ", step.name)};
    if (step.kind == Kind::embedding) {
      embeddings_.push_back(std::make_unique<graft::BasicEmbeddingSite<T>>(
          step.name, graft::BasicEmbeddingTable<T>(weight)));
      step.embedding = embeddings_.back().get();
      step.embedding->padding_index = step.padding_index;
      table_.embedding.push_back(step.embedding);
    } else if (step.kind == Kind::norm) {
      graft::BasicNorm<T> norm;
      norm.weight = weight;
      norm.bias = bias;
      norm.rms = !bias;
      norm.eps = static_cast<T>(1e-5);
      norms_.push_back(std::make_unique<graft::BasicNormSite<T>>(step.name, norm));
      step.norm = norms_.back().get();
      table_.norm.push_back(step.norm);
    } else {
      step.linear = add_linear(step.name, as_matrix(step, weight), bias);
      step.linear->fan_in_fan_out = step.in_out;
      if (step.kind == Kind::conv) {
        const auto axes = static_cast<std::size_t>(weight.rank() - 2);
        const auto spread = [&](std::vector<Index>& v, Index otherwise) {
          v.assign(axes, v.empty() ? otherwise : v[0]);
        };
        step.conv.kernel.clear();
        for (int i = 2; i < weight.rank(); ++i) step.conv.kernel.push_back(weight.dim(i));
        spread(step.conv.stride, 1);
        spread(step.conv.padding, 0);
        spread(step.conv.dilation, 1);
        step.linear->conv = {step.conv.kernel, weight.dim(1) * step.groups, step.groups};
      }
    }
  }

  static BasicVar<T> attention_step(const Step& step, const BasicVar<T>& x) {
    const Index d = x.cols(), batch = x.dim(0), rows = x.rows();
    const auto qkv = reshape((*step.linear)(x), {rows, 3 * d});
    graft::AttentionOptions<T> options;
    options.batch = batch;
    options.heads = options.kv_heads = step.heads;
    options.causal = false;
    options.scale = static_cast<T>(1 / std::sqrt(static_cast<double>(d / step.heads)));
    const auto y = graft::attention(slice(qkv, 1, 0, d), slice(qkv, 1, d, d),
                                    slice(qkv, 1, 2 * d, d), options);
    return reshape((*step.output)(y), x.shape());
  }

  std::vector<Step> steps_;
  std::vector<std::unique_ptr<graft::BasicLinearSite<T>>> linears_;
  std::vector<std::unique_ptr<graft::BasicEmbeddingSite<T>>> embeddings_;
  std::vector<std::unique_ptr<graft::BasicNormSite<T>>> norms_;
  BasicSiteTable<T> table_;
};

}  // namespace conformance
