#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/bottleneck/bottleneck.hpp"
#include "graft/adapters/bottleneck/shared_network.hpp"
#include "graft/adapters/bottleneck/token_rows.hpp"

namespace graft::inline v0_1 {

/// Configuration of PHA.
struct PHAConfig {
  Index adapter_dim = 64;
  Index embedding_dim = 64;
  Index hypernetwork_bottleneck = 128;
  Index retriever_hidden = 128;
  Index num_tasks = 1;
  double temperature = 0.1;
  double instance_weight = 0.1;   ///< of the loss between queries
  double prototype_weight = 0.1;  ///< of the loss between queries and prototypes
  bool include_positive = false;  ///< a query's own prototype counts in the denominator
  bool train_layer_norm = false;  ///< all norms of the model too, as the original does
  Selection select = {};

  static constexpr const char* kPeftType = "PHA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("adapter_dim", adapter_dim);
    v("embedding_dim", embedding_dim);
    v("hypernetwork_bottleneck", hypernetwork_bottleneck);
    v("retriever_hidden", retriever_hidden);
    v("num_tasks", num_tasks);
    v("temperature", temperature);
    v("instance_weight", instance_weight);
    v("prototype_weight", prototype_weight);
    v("include_positive", include_positive);
    v("train_layer_norm", train_layer_norm);
    select.fields(v);
  }
  /// @throws ValueError for sizes below one or a temperature that is not above zero.
  void validate() const {
    if (adapter_dim < 1 || embedding_dim < 1 || hypernetwork_bottleneck < 1 ||
        retriever_hidden < 1 || num_tasks < 1)
      throw ValueError("PHA: a size is below 1");
    if (!(temperature > 0))
      throw ValueError(concat("PHA: temperature ", temperature, ", expected above 0"));
  }
};

namespace detail {

/// The tasks of the rows of a batch. @throws ValueError if the batch does not say, or for a task
/// that does not exist
template <std::floating_point T>
std::vector<std::int64_t> tasks_of_rows(const BasicTape<T>& tape, Index batch, Index tasks) {
  const auto* context = tape.template context<ForwardContext>();
  if (context == nullptr || std::ssize(context->task_ids) != batch) {
    if (tasks == 1) return std::vector<std::int64_t>(static_cast<std::size_t>(batch), 0);
    throw ValueError(concat("PHA: the batch has no task_ids for its ", batch, " rows"));
  }
  for (const auto task : context->task_ids)
    if (task < 0 || task >= tasks)
      throw ValueError(concat("PHA: task ", task, ", expected [0, ", tasks, ")"));
  return context->task_ids;
}

/// x / max(‖x‖, 1e-12), row by row.
template <std::floating_point T>
BasicVar<T> unit_length(const BasicVar<T>& x) {
  return div(x, clamp(norm_last(x), static_cast<T>(1e-12), std::numeric_limits<T>::max()));
}

/// −Σ_ij c_ij (s_ij − log Σ_k exp s_ik), the terms with `gone` left out of the inner sum.
template <std::floating_point T>
BasicVar<T> contrastive(const BasicVar<T>& s, BasicTensor<T> coefficients,
                        const BasicTensor<T>& gone) {
  auto& tape = s.tape();
  auto far = gone.clone();
  for (T& v : far) v *= static_cast<T>(-1e30);
  const auto all = log_sum_exp(add(s, tape.constant(far)));
  for (T& c : coefficients) c = -c;
  return sum(mul(tape.constant(std::move(coefficients)), sub(s, all)));
}

}  // namespace detail

/// The adapter of one feed-forward sublayer, generated from the prototype of each row's task and
/// the embedding of the layer.
template <std::floating_point T>
class BasicPHA {
 public:
  using Scalar = T;

  BasicPHA(const PHAConfig& config, const HiddenSiteInfo<T>& site, InitContext<T>& context)
      : r_(config.adapter_dim),
        d_(site.width),
        tasks_(config.num_tasks),
        layer_(site.layer),
        net_("pha", context) {
    const Index e = config.embedding_dim, h = config.hypernetwork_bottleneck;
    if (layer_ < 0 || layer_ >= site.model.layers)
      throw ValueError(concat("PHA: ", site.path, " is in no layer of the model"));
    net_.normal("prototypes", {tasks_, e}, 1);
    net_.normal("layer_embeddings", {site.model.layers, e}, 1);
    const auto plain = [&](const std::string& name, Index out, Index in) {
      const double bound = 1 / std::sqrt(static_cast<double>(in));
      net_.uniform(name + ".weight", {out, in}, bound);
      net_.uniform(name + ".bias", {out}, bound);
    };
    plain("projector.0", h, 2 * e);
    plain("projector.2", e, h);
    net_.constant("projector_norm.weight", {e}, 1);
    net_.constant("projector_norm.bias", {e}, 0);
    const auto generator = [&](const std::string& name, Index out, Index fan_in) {
      net_.uniform(name + ".weight", {out, e},
                   1e-3 * std::sqrt(3.0 / static_cast<double>(e * fan_in)));
      net_.constant(name + ".bias", {out}, 0);
    };
    generator("down_weight", r_ * d_, d_);
    generator("down_bias", r_, d_);
    generator("up_weight", d_ * r_, r_);
    generator("up_bias", d_, r_);
    net_.close();
  }
  BasicVar<T> apply(const BasicVar<T>& input, const BasicVar<T>& output,
                    const BasicVar<T>& residual) const {
    auto& tape = output.tape();
    const auto& x = residual ? residual : input;
    const Index batch = detail::batch_rows(x);
    // Each task of the batch is generated once.
    std::vector<std::int64_t> present;
    std::vector<Index> place;
    for (const auto task : detail::tasks_of_rows(tape, batch, tasks_)) {
      const auto it = std::find(present.begin(), present.end(), task);
      place.push_back(it - present.begin());
      if (it == present.end()) present.push_back(task);
    }
    const auto in = embedding(tape, present);
    const auto generate = [&](const char* name, Index rows, Index cols) {
      return reshape(gather_rows(net_.affine(name, in), place), {batch, rows, cols});
    };
    const auto rows = reshape(x, {batch, x.rows() / batch, d_});
    const auto h =
        relu(add(matmul(rows, generate("down_weight", r_, d_), Transpose::no, Transpose::yes),
                 generate("down_bias", 1, r_)));
    const auto y = add(matmul(h, generate("up_weight", d_, r_), Transpose::no, Transpose::yes),
                       generate("up_bias", 1, d_));
    return add(output, reshape(y, output.shape()));
  }
  std::vector<AdapterTensor<T>> tensors() const { return net_.tensors(); }
  std::string merge_reason() const { return "a bottleneck with an activation is not linear"; }

  /// The plain parallel adapter of a task: D [r, d], b_D, U [d, r], b_U.
  std::vector<BasicTensor<T>> exported(Index task) const {
    BasicTape<T> tape({.gradients = false, .training = false});
    const auto in = embedding(tape, {task});
    std::vector<BasicTensor<T>> list;
    for (const auto& [name, shape] : {std::pair<const char*, Shape>{"down_weight", {r_, d_}},
                                      {"down_bias", {r_}},
                                      {"up_weight", {d_, r_}},
                                      {"up_bias", {d_}}})
      list.push_back(reshape(net_.affine(name, in), shape).value().clone());
    return list;
  }

 private:
  /// I of each task, [tasks, e].
  BasicVar<T> embedding(BasicTape<T>& tape, const std::vector<std::int64_t>& tasks) const {
    const auto z = concat_along(
        1, std::vector<BasicVar<T>>{gather_rows(net_.var(tape, "prototypes"), tasks),
                                    gather_rows(net_.var(tape, "layer_embeddings"),
                                                std::vector<Index>(tasks.size(), layer_))});
    return net_.norm("projector_norm",
                     net_.affine("projector.2", relu(net_.affine("projector.0", z))), 1e-6);
  }

  Index r_, d_, tasks_, layer_;
  detail::SharedNetwork<T> net_;
};

/// Makes a query of the last hidden states of each row, and the losses that pull queries of one
/// task together and to its prototype.
template <std::floating_point T>
class PHARetriever final : public AdapterPart<T>, public StackAdapterInterface<T> {
 public:
  /// @param norm  what follows the last block; null: nothing
  PHARetriever(const PHAConfig& config, Index width, Index layers, const BasicNormSite<T>* norm,
               InitContext<T>& context)
      : config_(config), last_(layers - 1), norm_(norm), net_("pha", context) {
    const Index h = config.retriever_hidden, e = config.embedding_dim;
    const auto plain = [&](const std::string& name, Index out, Index in) {
      const double bound = 1 / std::sqrt(static_cast<double>(in));
      net_.uniform(name + ".weight", {out, in}, bound);
      net_.uniform(name + ".bias", {out}, bound);
    };
    plain("retriever.0", h, width);
    plain("retriever.2", e, h);
    net_.normal("prototypes", {config.num_tasks, e}, 1);
    net_.close();
  }
  void begin(BasicTape<T>&) const override { query_ = {}; }
  BasicVar<T> enter(Index, const BasicVar<T>& x) const override { return x; }
  void leave(Index layer, const BasicVar<T>& x) const override {
    if (layer != last_) return;
    const auto mean = detail::token_means(norm_ == nullptr ? x : (*norm_)(x));
    query_ = net_.affine("retriever.2", relu(net_.affine("retriever.0", mean)));
    task_ids_ = detail::tasks_of_rows(x.tape(), query_.rows(), config_.num_tasks);
  }
  /// instance_weight L_inst + prototype_weight L_proto of the pass on this tape.
  BasicVar<T> auxiliary_loss(BasicTape<T>& tape) const override {
    if (!query_ || &query_.tape() != &tape) return {};
    BasicVar<T> total;
    const auto put = [&](const BasicVar<T>& loss, double weight) {
      if (!loss || weight == 0) return;
      const auto term = scale(loss, static_cast<T>(weight));
      total = total ? add(total, term) : term;
    };
    put(instance_loss(tape), config_.instance_weight);
    put(prototype_loss(tape), config_.prototype_weight);
    query_ = {};
    return total;
  }
  /// L_inst = mean_i −1/|P(i)| Σ_p (q_i·q_p/τ − log Σ_{j≠i} exp(q_i·q_j/τ)), P(i) the others of the
  /// task of i; rows without others count as 0. q of unit length.
  BasicVar<T> instance_loss(BasicTape<T>&) const {
    const auto q = detail::unit_length(query_);
    const Index n = q.rows();
    const auto task = [&](Index i) { return task_ids_[static_cast<std::size_t>(i)]; };
    auto coefficients = BasicTensor<T>::zeros({n, n}), self = BasicTensor<T>::identity(n);
    for (Index i = 0; i < n; ++i) {
      Index others = -1;
      for (Index j = 0; j < n; ++j) others += task(j) == task(i) ? 1 : 0;
      for (Index j = 0; j < n && others > 0; ++j)
        if (j != i && task(j) == task(i)) coefficients(i, j) = T{1} / static_cast<T>(others * n);
    }
    return detail::contrastive(scaled(matmul(q, q, Transpose::no, Transpose::yes)),
                               std::move(coefficients), self);
  }
  /// L_proto = mean_i −(q_i·k_τ(i)/τ − log Σ exp(q_i·k/τ)) over the other prototypes, or all with
  /// include_positive. Empty where there are no others.
  BasicVar<T> prototype_loss(BasicTape<T>& tape) const {
    if (config_.num_tasks == 1) return {};
    const auto q = detail::unit_length(query_),
               k = detail::unit_length(net_.var(tape, "prototypes"));
    auto coefficients = BasicTensor<T>::zeros({q.rows(), k.rows()}), gone = coefficients.clone();
    for (Index i = 0; i < q.rows(); ++i) {
      const auto task = static_cast<Index>(task_ids_[static_cast<std::size_t>(i)]);
      coefficients(i, task) = T{1} / static_cast<T>(q.rows());
      if (!config_.include_positive) gone(i, task) = 1;
    }
    return detail::contrastive(scaled(matmul(q, k, Transpose::no, Transpose::yes)),
                               std::move(coefficients), gone);
  }
  std::vector<AdapterTensor<T>> tensors() const override { return net_.tensors(); }
  std::string merge_reason() const override { return "a query depends on the input"; }

  /// The queries of the last pass, [batch, e], until its loss was taken.
  const BasicVar<T>& query() const { return query_; }
  /// The prototype nearest to the mean of queries, by cosine: where a new task begins.
  Index nearest_prototype(const BasicTensor<T>& queries) const {
    const auto& k = net_.at("prototypes").value();
    const Index e = k.cols();
    if (queries.cols() != e)
      throw ShapeError(
          concat("PHA: queries ", queries.shape().text(), " for prototypes ", k.shape().text()));
    std::vector<double> mean(static_cast<std::size_t>(e), 0);
    for (Index i = 0; i < queries.size(); ++i) mean[static_cast<std::size_t>(i % e)] += queries[i];
    Index best = 0;
    double highest = -2;
    for (Index t = 0; t < k.rows(); ++t) {
      double dot = 0, own = 0, other = 0;
      for (Index j = 0; j < e; ++j) {
        const double a = mean[static_cast<std::size_t>(j)], b = k(t, j);
        dot += a * b;
        own += a * a;
        other += b * b;
      }
      const double cosine = dot / std::max(std::sqrt(own * other), 1e-12);
      if (cosine > highest) {
        highest = cosine;
        best = t;
      }
    }
    return best;
  }
  /// Begins a task with the prototype of another one.
  void copy_prototype(Index from, Index to) {
    auto k = net_.at("prototypes").value().clone();
    if (from < 0 || from >= k.rows() || to < 0 || to >= k.rows())
      throw ValueError(concat("PHA: prototypes ", from, " and ", to, " of ", k.rows()));
    std::copy_n(k.data() + from * k.cols(), k.cols(), k.data() + to * k.cols());
    net_.at("prototypes").assign(std::move(k));
  }

 private:
  BasicVar<T> scaled(const BasicVar<T>& s) const {
    return scale(s, static_cast<T>(1 / config_.temperature));
  }

  PHAConfig config_;
  Index last_;
  const BasicNormSite<T>* norm_;
  detail::SharedNetwork<T> net_;
  mutable BasicVar<T> query_;
  mutable std::vector<std::int64_t> task_ids_;
};

/// PHA: h ← F(LN(x)) + ReLU(x Dᵀ + b_D) Uᵀ + b_U at the feed-forward sublayers, D, U and the biases
/// generated for the task of each row: I = LN(ReLU([k_τ; l_i] A₁ᵀ + a₁) A₂ᵀ + a₂), D = reshape(I
/// G_Dᵀ + g_D) and so on. The prototypes k_τ are learned by contrast too: queries q = ReLU(h̄ R₁ᵀ +
/// r₁) R₂ᵀ + r₂ of the mean h̄ of a row's last hidden states.
///
/// k, l, I, q: [e]. Trained in all: (1 + e) (2 d r + r + d), the projector (2 e → h → e), the
/// retriever (d → h → e), e (tasks + layers). Near the identity at the start. Losses:
/// instance_weight L_inst + prototype_weight L_proto, see PHARetriever. Not mergeable; `exported`
/// gives the plain adapter of a task. The batch says which task a row has (task_ids). Source: Zhao
/// et al. 2023 (arXiv:2310.11670), section 3. With one task and without include_positive L_proto
/// has no denominator and is left out. Tensors: shared.pha.{prototypes, layer_embeddings,
/// retriever.{0, 2}, projector.{0, 2}, projector_norm, {down, up}_{weight, bias}}.
template <std::floating_point T>
struct PHAMethod {
  using Scalar = T;
  using Config = PHAConfig;
  static constexpr bool kByRole = true;
  static MethodInfo info() {
    return {.peft_type = "PHA",
            .name = "PHA",
            .family = "bottleneck",
            .paper = "arXiv:2310.11670",
            .sites = "hidden, blocks",
            .parameters = "; (1 + e) (2 d r + r + d) and two small networks in all",
            .mergeable = false,
            .in_peft = false,
            .identity_at_init = false};
  }
  static bool trains_norms(const Config& config) { return config.train_layer_norm; }
  static std::shared_ptr<HiddenPart<T>> hidden(const Config& config, const HiddenSiteInfo<T>& site,
                                               InitContext<T>& context) {
    if (site.role != HiddenRole::feed_forward) return nullptr;
    return hidden_part(BasicPHA<T>(config, site, context));
  }
  static std::shared_ptr<NormPart<T>> norm(const Config&, const NormSiteInfo<T>& site,
                                           InitContext<T>&) {
    return std::make_shared<FullNorm<T>>(site.norm);
  }
  template <class Set>
  static void finish(const Config& config, Set& set, BasicSiteTable<T>& table,
                     InitContext<T>& context) {
    if (table.stack == nullptr)
      throw ValueError(concat("PHA: the blocks of the model (", table.info.architecture,
                              ") are no stack whose last states an adapter can see"));
    // A norm behind the blocks is the last one and in none of them.
    const BasicNormSite<T>* last = table.norm.empty() ? nullptr : table.norm.back();
    for (const auto* site : table.hidden)
      if (last != nullptr && site->role() == HiddenRole::block &&
          last->path().starts_with(site->path() + "."))
        last = nullptr;
    const auto retriever = std::make_shared<PHARetriever<T>>(config, table.info.hidden_size,
                                                             table.info.layers, last, context);
    table.stack->adapters().push_back({set.name(), retriever});
    set.add_part("", retriever);
  }
  /// The retriever of an adapter.
  static PHARetriever<T>* retriever(const std::vector<PlacedPart<T>>& parts) {
    for (const auto& placed : parts)
      if (auto* part = dynamic_cast<PHARetriever<T>*>(placed.part.get())) return part;
    return nullptr;
  }
};

}  // namespace graft::inline v0_1
