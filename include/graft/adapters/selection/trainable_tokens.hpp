#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"

namespace graft::inline v0_1 {

/// Configuration of trainable tokens; fields as in PEFT's TrainableTokensConfig.
struct TrainableTokensConfig {
  std::vector<Index> token_indices;
  TargetModules target_modules = {};  ///< empty: the input embedding
  bool init_weights = true;           ///< start from the rows of the table; false: N(0, 1)

  static constexpr const char* kPeftType = "TRAINABLE_TOKENS";

  template <class Visitor>
  void fields(Visitor& v) {
    v("token_indices", token_indices);
    v("target_modules", target_modules);
    v("init_weights", init_weights);
  }
  /// @throws ValueError if there is no index, a negative one, or the same one twice.
  void validate() const {
    if (token_indices.empty()) throw ValueError("trainable tokens: token_indices is empty");
    auto sorted = token_indices;
    std::sort(sorted.begin(), sorted.end());
    if (sorted[0] < 0) throw ValueError(concat("trainable tokens: index ", sorted[0]));
    if (const auto twice = std::adjacent_find(sorted.begin(), sorted.end()); twice != sorted.end())
      throw ValueError(concat("trainable tokens: index ", *twice, " is there twice"));
  }
};

namespace detail {

/// Rows of one matrix that take the place of rows of another.
struct ReplacedRow {
  Index to = 0, from = 0;
  bool learns = true;  ///< false: the value counts, its gradient does not
};

/// y = x, but for the rows y[to] = rows[from]. x: [n, dim], rows: [m, dim].
template <std::floating_point T>
BasicVar<T> replace_rows(const BasicVar<T>& x, const BasicVar<T>& rows,
                         std::vector<ReplacedRow> list) {
  const Index dim = x.cols();
  auto y = x.value().clone();
  for (const auto& r : list)
    std::copy_n(rows.value().data() + r.from * dim, dim, y.data() + r.to * dim);
  return x.tape().record(std::move(y), x.requires_grad() || rows.requires_grad(),
                         [gx = x.grad_ref(), gr = rows.grad_ref(), dim,
                          list = std::move(list)](const BasicTensor<T>& dy) {
                           if (gx) {
                             auto dx = dy.clone();
                             for (const auto& r : list)
                               std::fill_n(dx.data() + r.to * dim, dim, T{0});
                             gx.add(dx);
                           }
                           if (gr) {
                             T* dr = gr.accumulator();
                             for (const auto& r : list)
                               if (r.learns)
                                 kernels::add(dr + r.from * dim, dy.data() + r.to * dim,
                                              dr + r.from * dim, dim);
                           }
                         });
}

/// y = x, but for the columns y[:, columns[j]] = values[:, j]. x: [n, width], values: [n, columns].
template <std::floating_point T>
BasicVar<T> replace_columns(const BasicVar<T>& x, const BasicVar<T>& values,
                            std::vector<Index> columns) {
  const Index width = x.cols(), rows = x.rows(), count = static_cast<Index>(columns.size());
  auto y = x.value().clone();
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < count; ++j)
      y[i * width + columns[static_cast<std::size_t>(j)]] = values.value()[i * count + j];
  return x.tape().record(std::move(y), x.requires_grad() || values.requires_grad(),
                         [gx = x.grad_ref(), gv = values.grad_ref(), width, rows, count,
                          columns = std::move(columns)](const BasicTensor<T>& dy) {
                           if (gv) {
                             auto dv = BasicTensor<T>::empty(gv.shape());
                             for (Index i = 0; i < rows; ++i)
                               for (Index j = 0; j < count; ++j)
                                 dv[i * count + j] =
                                     dy[i * width + columns[static_cast<std::size_t>(j)]];
                             gv.add(dv);
                           }
                           if (gx) {
                             auto dx = dy.clone();
                             for (Index i = 0; i < rows; ++i)
                               for (Index column : columns) dx[i * width + column] = 0;
                             gx.add(dx);
                           }
                         });
}

/// First values of the trained rows. @throws ValueError for an index outside of the table.
template <std::floating_point T>
BasicParameter<T> token_rows(const TrainableTokensConfig& config, const std::string& path,
                             Index vocabulary, Index dim,
                             const std::function<BasicTensor<T>()>& table,
                             InitContext<T>& context) {
  config.validate();
  for (Index id : config.token_indices)
    if (id >= vocabulary)
      throw ValueError(concat("trainable tokens: index ", id, " of ", path, ", which has ",
                              vocabulary, " rows"));
  const Index count = static_cast<Index>(config.token_indices.size());
  if (!config.init_weights && !context.loading)
    return BasicParameter<T>(normal_tensor<T>(context.generator, {count, dim}, 1));
  auto rows = BasicTensor<T>::zeros({count, dim});
  if (!context.loading) {
    const auto all = table();
    for (Index k = 0; k < count; ++k)
      std::copy_n(all.data() + config.token_indices[static_cast<std::size_t>(k)] * dim, dim,
                  rows.data() + k * dim);
  }
  return BasicParameter<T>(rows);
}

}  // namespace detail

/// Output units with trained weights: y = base(x), but y[:, t] = x d_tᵀ (+ b_t) for the units t of
/// `token_indices`. d: [tokens, in]. The output side of trainable tokens; merges by writing the
/// rows.
template <std::floating_point T>
class BasicTrainableTokensHead final : public LinearPart<T> {
 public:
  /// `name` is that of the tensor in files; empty: the rows belong to another part.
  BasicTrainableTokensHead(std::vector<Index> tokens, BasicParameter<T> rows, std::string name = "")
      : tokens_(std::move(tokens)), rows_(std::move(rows)), name_(std::move(name)) {}

  BasicVar<T> apply(const BasicLinearView<T>& base, const BasicVar<T>& x) const override {
    auto& tape = x.tape();
    auto values = matmul(x, tape.parameter(rows_), Transpose::no, Transpose::yes);
    if (const auto bias = base.bias()) {
      auto own = BasicTensor<T>::empty({rows_.shape()[0]});
      for (Index k = 0; k < own.size(); ++k) own[k] = bias[tokens_[static_cast<std::size_t>(k)]];
      values = add(values, tape.constant(own));
    }
    return detail::replace_columns(base(x), values, tokens_);
  }
  std::vector<AdapterTensor<T>> tensors() const override {
    std::vector<AdapterTensor<T>> list;
    if (!name_.empty())
      list.push_back({.name = name_, .parameter = rows_, .index = {}, .file_shape = {}});
    return list;
  }

 private:
  std::vector<Index> tokens_;
  BasicParameter<T> rows_;
  std::string name_;
};

/// Trainable tokens: rows t of an embedding are trained, y = d_t for an id t of `token_indices`,
/// E[id] for others.
///
/// d: [tokens, dim], the rows themselves although files call it a delta; trained: tokens · dim. The
/// identity at the start, unless `init_weights` is false. Merges by writing the rows. An output
/// layer on the same table runs on the trained rows too. The row of the padding id gets no
/// gradient. Source: Hugging Face PEFT. Tensor: trainable_tokens_delta.
template <std::floating_point T>
class BasicTrainableTokens {
 public:
  using Scalar = T;
  using Config = TrainableTokensConfig;

  /// `prefix` is put before the name of the tensor in files.
  BasicTrainableTokens(const TrainableTokensConfig& config, const EmbeddingSiteInfo<T>& site,
                       InitContext<T>& context, std::string prefix = "")
      : tokens_(config.token_indices),
        padding_(site.padding_index),
        rows_(detail::token_rows<T>(config, site.path, site.vocabulary, site.dim, site.table,
                                    context)),
        name_(prefix + "trainable_tokens_delta") {
    for (std::size_t k = 0; k < tokens_.size(); ++k)
      row_of_[static_cast<std::int32_t>(tokens_[k])] = static_cast<Index>(k);
  }

  BasicVar<T> apply(const BasicEmbeddingView<T>& base, BasicTape<T>& tape,
                    std::span<const std::int32_t> ids) const {
    std::vector<detail::ReplacedRow> list;
    for (std::size_t i = 0; i < ids.size(); ++i)
      if (const auto it = row_of_.find(ids[i]); it != row_of_.end())
        list.push_back({static_cast<Index>(i), it->second, ids[i] != padding_});
    // Without such ids the rows still have a gradient, of zeros.
    return detail::replace_rows(base(tape, ids), tape.parameter(rows_), std::move(list));
  }
  std::shared_ptr<LinearPart<T>> tied_head() const {
    return std::make_shared<BasicTrainableTokensHead<T>>(tokens_, rows_);
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    list.push_back({.name = name_, .parameter = rows_, .index = {}, .file_shape = {}});
    return list;
  }
  const BasicParameter<T>& rows() const { return rows_; }

 private:
  std::vector<Index> tokens_;
  Index padding_;
  BasicParameter<T> rows_;
  std::string name_;
  std::unordered_map<std::int32_t, Index> row_of_;
};

template <std::floating_point T>
struct TrainableTokensMethod {
  using Scalar = T;
  using Config = TrainableTokensConfig;
  /// Its configuration lists tokens, not modules.
  static constexpr bool kOwnModules = true;
  static Config example() {
    Config config;
    config.token_indices = {1, 7};
    return config;
  }
  static MethodInfo info() {
    return {.peft_type = "TRAINABLE_TOKENS",
            .name = "Trainable tokens",
            .family = "selection",
            .paper = "huggingface/peft",
            .sites = "embedding, output layer",
            .parameters = "; tokens dim",
            .adds_up = false};
  }
  static std::shared_ptr<EmbeddingPart<T>> embedding(const Config& config,
                                                     const EmbeddingSiteInfo<T>& site,
                                                     InitContext<T>& context) {
    return embedding_part(BasicTrainableTokens<T>(config, site, context));
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    return std::make_shared<BasicTrainableTokensHead<T>>(
        config.token_indices,
        detail::token_rows<T>(config, site.path, site.out_features, site.in_features, site.weight,
                              context),
        "trainable_tokens_delta");
  }
};

}  // namespace graft::inline v0_1
