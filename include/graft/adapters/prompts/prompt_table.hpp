#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/prompts/prompt_config.hpp"

namespace graft::inline v0_1 {

/// Makes the table of virtual tokens from trained tensors that finished files do not hold.
template <std::floating_point T>
class PromptEncoder {
 public:
  virtual ~PromptEncoder() = default;
  /// Name below "prompt_encoder." and tensor; by the first one a file is known to hold the encoder.
  virtual std::vector<std::pair<std::string, BasicParameter<T>>> tensors() const = 0;
  /// Columns [first, first + count) of the table, [rows, count].
  virtual BasicVar<T> columns(BasicTape<T>& tape, Index first, Index count) const = 0;
  /// Takes the values of a finished table over, to go on from them; false: that cannot be.
  virtual bool adopt(const BasicTensor<T>&) const { return false; }
  /// Called before tensors of a file replace those of the encoder.
  virtual void before_load() const {}
};

/// The table of virtual tokens P, [rows, columns]: trained itself, or what an encoder makes.
///
/// A finished file holds `prompt_embeddings` = P only, so an encoder is lost there: what was loaded
/// from such a file is P itself, and goes on being trained as that. A file written for going on
/// holds the encoder's tensors (`prompt_encoder.…`) instead.
///
/// `below_model`: files hold the tensors below "base_model.model.", not under their names alone.
/// `keep_encoder`: finished files hold the encoder too.
template <std::floating_point T>
class PromptTable {
 public:
  explicit PromptTable(BasicTensor<T> values)
      : shape_(values.shape()), values_(std::move(values)) {}
  PromptTable(const Shape& shape, std::unique_ptr<PromptEncoder<T>> encoder)
      : shape_(shape), encoder_(std::move(encoder)) {}

  bool below_model = false;
  bool keep_encoder = false;

  const Shape& shape() const { return shape_; }
  BasicVar<T> columns(BasicTape<T>& tape, Index first, Index count) const {
    if (!values_) return encoder_->columns(tape, first, count);
    const auto all = tape.parameter(values_);
    return count == shape_[1] ? all : slice(all, 1, first, count);
  }
  BasicVar<T> all(BasicTape<T>& tape) const { return columns(tape, 0, shape_[1]); }
  const PromptEncoder<T>* encoder() const { return values_ ? nullptr : encoder_.get(); }

  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    if (values_)
      list.push_back(entry("prompt_embeddings", values_));
    else
      for (auto& [name, parameter] : encoder_->tensors())
        list.push_back(entry("prompt_encoder." + name, parameter));
    return list;
  }
  std::vector<AdapterTensor<T>> file_tensors() const {
    if (values_ || keep_encoder) return tensors();
    BasicTape<T> tape({.gradients = false, .training = false});
    return {entry("prompt_embeddings", BasicParameter<T>(all(tape).value().clone(), false))};
  }
  void before_load(const CheckpointShapes& shapes) {
    if (!encoder_) return;
    if (shapes(name_of("prompt_encoder." + encoder_->tensors()[0].first)) != nullptr) {
      values_ = {};
      encoder_->before_load();
    } else if (!values_) {
      BasicTape<T> tape({.gradients = false, .training = false});
      values_ = BasicParameter<T>(all(tape).value().clone());
    }
  }
  void after_load() {
    if (encoder_ && values_ && encoder_->adopt(values_.value())) values_ = {};
  }

 private:
  using Scope = typename AdapterTensor<T>::Scope;
  std::string name_of(const std::string& name) const {
    return below_model ? "model." + name : name;
  }
  AdapterTensor<T> entry(const std::string& name, BasicParameter<T> parameter) const {
    return {.name = name_of(name),
            .parameter = std::move(parameter),
            .index = {},
            .scope = below_model ? Scope::model : Scope::root,
            .file_shape = {}};
  }

  Shape shape_;
  BasicParameter<T> values_;  ///< empty while the encoder makes the table
  std::unique_ptr<PromptEncoder<T>> encoder_;
};

/// Virtual tokens in front of those of the text: the first `tokens` rows of a table, the same for
/// every row of the batch.
template <std::floating_point T>
class TablePrompt : public PromptPart<T> {
 public:
  TablePrompt(std::shared_ptr<PromptTable<T>> table, Index tokens)
      : table_(std::move(table)), tokens_(tokens) {}

  Index virtual_tokens() const override { return tokens_; }
  BasicVar<T> prompt(BasicTape<T>& tape, Index batch, const ForwardContext&) const override {
    const auto rows = slice(table_->all(tape), 0, 0, tokens_);
    return broadcast_to(reshape(rows, {1, tokens_, rows.cols()}), {batch, tokens_, rows.cols()});
  }
  std::vector<AdapterTensor<T>> tensors() const override { return table_->tensors(); }
  std::vector<AdapterTensor<T>> file_tensors() const override { return table_->file_tensors(); }
  void before_load(const CheckpointShapes& shapes) override { table_->before_load(shapes); }
  void after_load() override { table_->after_load(); }
  const PromptTable<T>& table() const { return *table_; }

 private:
  std::shared_ptr<PromptTable<T>> table_;
  Index tokens_;
};

namespace detail {

/// x Wᵀ + b.
template <std::floating_point T>
BasicVar<T> trained_affine(const BasicVar<T>& x, const BasicVar<T>& weight,
                           const BasicVar<T>& bias) {
  return add(matmul(x, weight, Transpose::no, Transpose::yes), bias);
}

/// y = x Wᵀ + b as torch makes it, uniform in ±1/√in. W: [out, in].
template <std::floating_point T>
struct PromptLayer {
  BasicParameter<T> weight, bias;

  PromptLayer(Index out, Index in, InitContext<T>& context, bool zero = false)
      : weight(BasicTensor<T>::zeros({out, in})), bias(BasicTensor<T>::zeros({out})) {
    if (context.loading) return;
    auto w = kaiming_uniform_tensor<T>(context.generator, {out, in}, in);
    auto b = kaiming_uniform_tensor<T>(context.generator, {out}, in);
    if (zero) return;
    weight.assign(std::move(w));
    bias.assign(std::move(b));
  }
  BasicVar<T> operator()(const BasicVar<T>& x) const {
    return trained_affine<T>(x, x.tape().parameter(weight), x.tape().parameter(bias));
  }
  /// Outputs [first, first + count) only.
  BasicVar<T> operator()(const BasicVar<T>& x, Index first, Index count) const {
    return trained_affine<T>(x, slice(x.tape().parameter(weight), 0, first, count),
                             slice(x.tape().parameter(bias), 0, first, count));
  }
  void list(std::vector<std::pair<std::string, BasicParameter<T>>>& tensors,
            const std::string& name) const {
    tensors.emplace_back(name + ".weight", weight);
    tensors.emplace_back(name + ".bias", bias);
  }
};

/// N(0, 1), as torch makes an embedding; zeros where a checkpoint follows.
template <std::floating_point T>
BasicTensor<T> embedding_values(const Shape& shape, InitContext<T>& context) {
  return context.loading ? BasicTensor<T>::zeros(shape)
                         : normal_tensor<T>(context.generator, shape, 1);
}

}  // namespace detail

}  // namespace graft::inline v0_1
