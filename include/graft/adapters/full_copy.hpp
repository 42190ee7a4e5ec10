#pragma once

#include <memory>
#include <string>
#include <utility>

#include "graft/adapters/part.hpp"
#include "graft/tensor/transposed.hpp"

/// Modules that are trained whole beside an adapter (`modules_to_save`), and full fine-tuning.
namespace graft::inline v0_1 {

/// A linear layer with a trained copy of weight and bias: y = x Wᵀ + b. Trained: out · in (+ out).
template <std::floating_point T>
class FullLinear final : public LinearPart<T> {
 public:
  /// W as [out, in]. Files hold that of a convolution `conv` with its kernel, and where `in_out` is
  /// set as [in, out]; `prefix` is put before "weight" and "bias" there.
  FullLinear(const BasicTensor<T>& weight, const BasicTensor<T>& bias,
             const ConvGeometry& conv = {}, bool in_out = false, std::string prefix = "")
      : weight_(in_out ? transposed(weight) : weight.clone()),
        file_shape_(conv.weight_shape(weight.rows())),
        in_out_(in_out),
        prefix_(std::move(prefix)) {
    if (bias) bias_ = BasicParameter<T>(bias.clone());
  }
  /// A layer whose weight another part trains too: a head over the rows of the embedding. Without a
  /// bias to train, that of the layer stays.
  explicit FullLinear(BasicParameter<T> shared, const BasicTensor<T>& bias = {})
      : weight_(std::move(shared)), owns_weight_(false) {
    if (bias) bias_ = BasicParameter<T>(bias.clone());
  }
  BasicVar<T> apply(const BasicLinearView<T>& base, const BasicVar<T>& x) const override {
    auto& tape = x.tape();
    auto y =
        matmul(x, tape.parameter(weight_), Transpose::no, in_out_ ? Transpose::no : Transpose::yes);
    if (bias_) return add(y, tape.parameter(bias_));
    const auto frozen = owns_weight_ ? BasicTensor<T>{} : base.bias();
    return frozen ? add(y, tape.constant(frozen)) : y;
  }
  std::vector<AdapterTensor<T>> tensors() const override {
    std::vector<AdapterTensor<T>> list;
    if (owns_weight_)
      list.push_back({.name = prefix_ + "weight",
                      .parameter = weight_,
                      .index = {},
                      .file_shape = file_shape_});
    if (bias_)
      list.push_back({.name = prefix_ + "bias", .parameter = bias_, .index = {}, .file_shape = {}});
    return list;
  }

 private:
  BasicParameter<T> weight_;
  BasicParameter<T> bias_;
  Shape file_shape_;
  bool in_out_ = false;
  std::string prefix_;
  bool owns_weight_ = true;
};

/// An embedding with a trained copy of its table. Trained: vocabulary · dim. Looked up, the row of
/// the padding id gets no gradient, as torch's.
template <std::floating_point T>
class FullEmbedding final : public EmbeddingPart<T> {
 public:
  /// `padding`: the row that stands for padding, -1 without one; `prefix` is put before "weight" in
  /// files.
  explicit FullEmbedding(const BasicTensor<T>& table, Index padding, std::string prefix = "")
      : table_(table.clone()), padding_(padding), prefix_(std::move(prefix)) {}
  const BasicParameter<T>& table() const { return table_; }
  BasicVar<T> apply(const BasicEmbeddingView<T>&, BasicTape<T>& tape,
                    std::span<const std::int32_t> ids) const override {
    return gather_rows(tape.parameter(table_), std::vector<std::int32_t>(ids.begin(), ids.end()),
                       padding_);
  }
  std::shared_ptr<LinearPart<T>> head_if_asked() const override {
    return std::make_shared<FullLinear<T>>(table_);
  }
  std::vector<AdapterTensor<T>> tensors() const override {
    std::vector<AdapterTensor<T>> list;
    list.push_back(
        {.name = prefix_ + "weight", .parameter = table_, .index = {}, .file_shape = {}});
    return list;
  }

 private:
  BasicParameter<T> table_;
  Index padding_;
  std::string prefix_;
};

/// A norm with a trained copy of weight and bias. Trained: width, or twice that with a bias.
template <std::floating_point T>
class FullNorm final : public NormPart<T> {
 public:
  /// `prefix` is put before "weight" and "bias" in files.
  explicit FullNorm(const BasicNorm<T>& norm, std::string prefix = "")
      : prefix_(std::move(prefix)) {
    if (norm.weight) weight_ = BasicParameter<T>(norm.weight.clone());
    if (norm.bias) bias_ = BasicParameter<T>(norm.bias.clone());
  }
  BasicVar<T> apply(const BasicNorm<T>& norm, const BasicVar<T>& x) const override {
    auto& tape = x.tape();
    return norm.apply(x, weight_ ? tape.parameter(weight_) : BasicVar<T>{},
                      bias_ ? tape.parameter(bias_) : BasicVar<T>{});
  }
  std::optional<BasicNorm<T>> merged(const BasicNorm<T>& norm) const override {
    BasicNorm<T> result = norm;
    if (weight_) result.weight = weight_.value().clone();
    if (bias_) result.bias = bias_.value().clone();
    return result;
  }
  std::vector<AdapterTensor<T>> tensors() const override {
    std::vector<AdapterTensor<T>> list;
    if (weight_)
      list.push_back(
          {.name = prefix_ + "weight", .parameter = weight_, .index = {}, .file_shape = {}});
    if (bias_)
      list.push_back({.name = prefix_ + "bias", .parameter = bias_, .index = {}, .file_shape = {}});
    return list;
  }

 private:
  std::string prefix_;
  BasicParameter<T> weight_;
  BasicParameter<T> bias_;
};

}  // namespace graft::inline v0_1
