#pragma once

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/base/aligned_buffer.hpp"
#include "graft/io/gguf.hpp"
#include "graft/io/safetensors.hpp"
#include "graft/layers/dense_linear.hpp"
#include "graft/layers/embedding_table.hpp"
#include "graft/layers/quantized_linear.hpp"
#include "graft/layers/sites.hpp"
#include "graft/tensor/transposed.hpp"

namespace graft::inline v0_1::models {

/// Frozen weights by the names that Hugging Face gives them, from whichever file holds them. Shapes
/// are checked against what the model expects; weights stay mapped and in their format where a
/// layer can run on it.
template <std::floating_point T>
class BasicWeights {
 public:
  virtual ~BasicWeights() = default;
  /// True if the file has the tensor.
  virtual bool has(const std::string& name) const = 0;
  /// True if the file has the tensor in this shape.
  virtual bool fits(const std::string& name, const Shape&) const { return has(name); }
  /// True if the file has both tensors with different values in them.
  virtual bool differ(const std::string&, const std::string&) const { return false; }
  /// True if layer `head` is to share the table of embedding `table`: the configuration says so
  /// (`tied`) and the file has no such layer of other values, which transformers 5 would keep.
  bool ties(bool tied, const std::string& head, const std::string& table) const {
    return tied && !differ(head + ".weight", table + ".weight");
  }
  /// `table`, or the first of the layers tied to it that the file has where it has no `table`.
  std::string stored_table(const std::string& table,
                           std::initializer_list<std::string> tied) const {
    if (has(table + ".weight")) return table;
    for (const auto& name : tied)
      if (has(name + ".weight")) return name;
    return table;
  }
  /// A small tensor (norm, bias) as T. @throws IoError if it is missing or of another shape.
  virtual BasicTensor<T> tensor(const std::string& name, const Shape& shape) const = 0;
  /// The layer with weight `name`.weight [out, in] and, if the file has it, `name`.bias.
  virtual BasicAnyLinear<T> linear(const std::string& name, Index out, Index in) const = 0;
  virtual BasicEmbeddingTable<T> embedding(const std::string& name, Index rows,
                                           Index dim) const = 0;
  /// A layer whose file holds the weight as [in, out] (GPT-2's Conv1D); the weight is transposed
  /// into a copy.
  BasicAnyLinear<T> linear_in_out(const std::string& name, Index out, Index in) const {
    return BasicDenseLinear<T>(transposed(tensor(name + ".weight", {in, out})),
                               optional_tensor(name + ".bias", {out}));
  }
  BasicTensor<T> optional_tensor(const std::string& name, const Shape& shape) const {
    return has(name) ? tensor(name, shape) : BasicTensor<T>{};
  }
};

/// Zeros, for models whose weights come from elsewhere. Norms are ones.
template <std::floating_point T>
class ZeroWeights final : public BasicWeights<T> {
 public:
  /// `biases`: which layers have one, as another file says.
  explicit ZeroWeights(std::function<bool(const std::string&)> biases)
      : biases_(std::move(biases)) {}
  bool has(const std::string& name) const override {
    return !name.ends_with(".bias") || biases_(name);
  }
  BasicTensor<T> tensor(const std::string& name, const Shape& shape) const override {
    const bool norm =
        name.find("norm") != std::string::npos || name.find("Norm") != std::string::npos;
    return norm && name.ends_with(".weight") ? BasicTensor<T>::ones(shape)
                                             : BasicTensor<T>::zeros(shape);
  }
  BasicAnyLinear<T> linear(const std::string& name, Index out, Index in) const override {
    return BasicDenseLinear<T>(BasicTensor<T>::zeros({out, in}),
                               this->optional_tensor(name + ".bias", {out}));
  }
  BasicEmbeddingTable<T> embedding(const std::string&, Index rows, Index dim) const override {
    return BasicEmbeddingTable<T>(BasicTensor<T>::zeros({rows, dim}));
  }

 private:
  std::function<bool(const std::string&)> biases_;
};

namespace detail {

template <class FileTensor>
bool same_shape(const FileTensor& t, const Shape& shape) {
  return t.shape.size() == static_cast<std::size_t>(shape.rank()) &&
         std::equal(t.shape.begin(), t.shape.end(), shape.begin());
}

}  // namespace detail

/// Weights of a Hugging Face folder (or one safetensors file). f32 is used in place, f16 and bf16
/// stay so.
template <std::floating_point T>
class SafetensorsWeights final : public BasicWeights<T> {
 public:
  /// `prefix` is put before names that the file does not have without it ("model." of a headless
  /// checkpoint and the like). A LayerNorm's weight and bias may be called gamma and beta.
  explicit SafetensorsWeights(const std::filesystem::path& path,
                              std::vector<std::string> prefixes = {})
      : file_(std::make_shared<io::SafetensorsModel>(io::SafetensorsModel::open(path))),
        prefixes_(std::move(prefixes)) {}

  bool has(const std::string& name) const override { return find(name) != nullptr; }
  bool fits(const std::string& name, const Shape& shape) const override {
    const auto* view = find(name);
    return view != nullptr && detail::same_shape(*view, shape);
  }
  bool differ(const std::string& first, const std::string& second) const override {
    const auto *a = find(first), *b = find(second);
    return a != nullptr && b != nullptr && !io::same_values(*a, *b);
  }
  BasicTensor<T> tensor(const std::string& name, const Shape& shape) const override {
    const auto& view = at(name, shape);
    return converted(view, shape);
  }
  BasicAnyLinear<T> linear(const std::string& name, Index out, Index in) const override {
    const auto& view = at(name + ".weight", {out, in});
    const auto bias = this->optional_tensor(name + ".bias", {out});
    if constexpr (std::is_same_v<T, float>) {
      if (view.dtype == io::DType::f16 || view.dtype == io::DType::bf16)
        return QuantizedLinear(format_of(view.dtype), view.data.data(), out, in, bias, file_);
    }
    return BasicDenseLinear<T>(matrix(view, {out, in}), bias);
  }
  BasicEmbeddingTable<T> embedding(const std::string& name, Index rows, Index dim) const override {
    const auto& view = at(name + ".weight", {rows, dim});
    if constexpr (std::is_same_v<T, float>) {
      if (view.dtype == io::DType::f16 || view.dtype == io::DType::bf16)
        return BasicEmbeddingTable<T>(format_of(view.dtype), view.data.data(), rows, dim, file_);
    }
    return BasicEmbeddingTable<T>(matrix(view, {rows, dim}));
  }
  const io::SafetensorsModel& file() const { return *file_; }

 private:
  const io::TensorView* find(const std::string& name) const {
    if (const auto* view = find_as(name)) return view;
    for (const auto& [now, before] :
         {std::pair<std::string_view, std::string_view>{"LayerNorm.weight", "LayerNorm.gamma"},
          {"LayerNorm.bias", "LayerNorm.beta"}})
      if (name.ends_with(now))
        return find_as(name.substr(0, name.size() - now.size()) + std::string(before));
    return nullptr;
  }
  const io::TensorView* find_as(const std::string& name) const {
    if (const auto* view = file_->find(name)) return view;
    for (const auto& prefix : prefixes_) {
      if (const auto* view = file_->find(prefix + name)) return view;
      if (name.starts_with(prefix))
        if (const auto* view = file_->find(name.substr(prefix.size()))) return view;
    }
    return nullptr;
  }
  const io::TensorView& at(const std::string& name, const Shape& shape) const {
    const auto* view = find(name);
    if (view == nullptr) throw IoError(concat(file_->name(), ": tensor '", name, "' is missing"));
    if (!detail::same_shape(*view, shape))
      throw IoError(concat(file_->name(), ": tensor '", name, "' has shape ",
                           Shape(view->shape.begin(), view->shape.end()).text(), ", expected ",
                           shape.text()));
    return *view;
  }
  static quant::Format format_of(io::DType dtype) {
    return dtype == io::DType::f16 ? quant::Format::f16 : quant::Format::bf16;
  }
  static BasicTensor<T> converted(const io::TensorView& view, const Shape& shape) {
    if constexpr (std::is_same_v<T, float>) {
      auto t = BasicTensor<T>::empty(shape);
      io::to_f32(view, t.span());
      return t;
    } else {
      return BasicTensor<T>::from(io::to_f64(view), shape);
    }
  }
  BasicTensor<T> matrix(const io::TensorView& view, const Shape& shape) const {
    const auto address = reinterpret_cast<std::uintptr_t>(view.data.data());
    if (std::is_same_v<T, float> && view.dtype == io::DType::f32 && address % alignof(T) == 0)
      return BasicTensor<T>::borrow(const_cast<T*>(reinterpret_cast<const T*>(view.data.data())),
                                    shape, file_);
    return converted(view, shape);
  }

  std::shared_ptr<io::SafetensorsModel> file_;
  std::vector<std::string> prefixes_;
};

/// Weights of a GGUF file under Hugging Face names: "model.layers.3.self_attn.q_proj.weight" is
/// "blk.3.attn_q.weight". Quantised weights stay so (T = float) and are mapped; where the file has
/// reordered the rows of q and k for its own rotation (architecture llama), the rows are put back
/// into a copy.
template <std::floating_point T>
class GgufWeights final : public BasicWeights<T> {
 public:
  /// `head_rows`: for a tensor whose rows were reordered, the rows of one head; 0 for others.
  GgufWeights(std::shared_ptr<const io::GgufFile> file,
              std::function<std::string(const std::string&)> rename,
              std::function<Index(const std::string&)> head_rows)
      : file_(std::move(file)), rename_(std::move(rename)), head_rows_(std::move(head_rows)) {}

  bool has(const std::string& name) const override { return file_->find(rename_(name)) != nullptr; }
  bool fits(const std::string& name, const Shape& shape) const override {
    const auto* t = file_->find(rename_(name));
    return t != nullptr && detail::same_shape(*t, shape);
  }
  BasicTensor<T> tensor(const std::string& name, const Shape& shape) const override {
    const auto& t = at(name, shape);
    const auto values = io::to_f32(t);
    auto result = BasicTensor<T>::from(values, shape);
    const Index head = head_rows_(name);
    if (head <= 0) return result;
    auto ordered = BasicTensor<T>::empty(shape);
    const Index width = result.size() / shape[0];
    for (Index r = 0; r < shape[0]; ++r)
      std::copy_n(result.data() + file_row(r, head) * width, width, ordered.data() + r * width);
    return ordered;
  }
  BasicAnyLinear<T> linear(const std::string& name, Index out, Index in) const override {
    const auto& t = at(name + ".weight", {out, in});
    const auto bias = this->optional_tensor(name + ".bias", {out});
    if constexpr (std::is_same_v<T, float>) {
      const Index head = head_rows_(name + ".weight");
      if (head <= 0)
        return QuantizedLinear(t.format(), t.data.data(), out, in, bias, file_->storage());
      const auto row = static_cast<std::size_t>(quant::row_bytes(t.format(), in));
      auto ordered =
          std::make_shared<AlignedBuffer<std::byte>>(row * static_cast<std::size_t>(out));
      for (Index r = 0; r < out; ++r)
        std::memcpy(ordered->data() + static_cast<std::size_t>(r) * row,
                    t.data.data() + static_cast<std::size_t>(file_row(r, head)) * row, row);
      return QuantizedLinear(t.format(), ordered->data(), out, in, bias, ordered);
    } else {
      return BasicDenseLinear<T>(tensor(name + ".weight", {out, in}), bias);
    }
  }
  BasicEmbeddingTable<T> embedding(const std::string& name, Index rows, Index dim) const override {
    const auto& t = at(name + ".weight", {rows, dim});
    if constexpr (std::is_same_v<T, float>) {
      return BasicEmbeddingTable<T>(t.format(), t.data.data(), rows, dim, file_->storage());
    } else {
      return BasicEmbeddingTable<T>(tensor(name + ".weight", {rows, dim}));
    }
  }

 private:
  /// The file keeps the two halves of each head's rows interleaved.
  static Index file_row(Index row, Index head) {
    const Index in_head = row % head, half = head / 2;
    return row - in_head + 2 * (in_head % half) + in_head / half;
  }
  const io::GgufTensor& at(const std::string& name, const Shape& shape) const {
    const auto* t = file_->find(rename_(name));
    if (t == nullptr)
      throw IoError(
          concat(file_->name(), ": tensor '", rename_(name), "' (", name, ") is missing"));
    if (!detail::same_shape(*t, shape))
      throw IoError(concat(file_->name(), ": tensor '", t->name, "' has shape ",
                           Shape(t->shape.begin(), t->shape.end()).text(), ", expected ",
                           shape.text()));
    return *t;
  }

  std::shared_ptr<const io::GgufFile> file_;
  std::function<std::string(const std::string&)> rename_;
  std::function<Index(const std::string&)> head_rows_;
};

/// A frozen linear layer over the rows of an embedding table (a tied head), sharing them.
template <std::floating_point T>
BasicAnyLinear<T> tied_head(const BasicEmbeddingTable<T>& table, const BasicTensor<T>& bias = {}) {
  if constexpr (std::is_same_v<T, float>) {
    if (table.blocks() != nullptr)
      return QuantizedLinear(table.format(), table.blocks(), table.rows(), table.dim(), bias,
                             table.keep_alive());
  }
  return BasicDenseLinear<T>(table.dense(), bias);
}

}  // namespace graft::inline v0_1::models
