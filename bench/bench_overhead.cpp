// The cost of every method of the registry over the frozen layer: forward pass, step (forward,
// gradient of the input and of the parameters) and memory, as ratios measured alternately in one
// run.
//
// Methods of linear layers sit on the layer itself. Others get the layer with what they change: a
// hidden state, a normalisation, an attention, an embedding or virtual tokens behind or before it,
// in the frozen map as well.
#include <algorithm>
#include <cctype>
#include <map>

#include "adapter_overhead.hpp"
#include "graft/compose/adapter_model.hpp"
#include "graft/compose/methods.hpp"
#include "graft/layers/forward_context.hpp"

namespace {

using namespace graft;
using bench::LayerSize;
using bench::Overhead;
using bench::Subject;

/// A configuration of the registry under a name.
struct Candidate {
  std::string name;
  const MethodEntry<float>* entry;
  ConfigValue::Map config;
};

/// What needs more operations than the limit of 1.25 leaves, by definition: written beside the
/// measurement. A frozen step costs 4 · rows · in · out operations.
std::string_view bound_of(const std::string& name) {
  // Rank r on n rows in a step: 2 n r (in + out) operations forward and as many for the gradient of
  // the input, as many again for trained factors; 1.5 r (in + out) / (in · out) of the frozen step
  // with trained factors, r (in + out) / (in · out) with frozen ones. A trained weight needs its
  // own gradient, half a frozen step.
  static const std::map<std::string, std::string_view> bounds{
      {"FULL", "bound 1.50: gradient of the whole weight"},
      {"HIRA", "bound 1.50: gradient of the whole weight, W ⊙ BA written out"},
      {"GLORA", "bound 1.50: gradient of the whole weight, W ⊙ A B written out"},
      {"GLORA_SUPERNET", "bound 1.50: gradient of the whole weight, W ⊙ A B written out"},
      {"TAPS", "bound 1.50: gradient of the whole weight"},
      {"RAMT", "bound 1.50: gradient of the whole mask"},
      {"PST", "bound 1.50: gradient of the whole mask, made anew from the weight"},
      {"DIFF_PRUNING", "bound 1.50, and a logistic gate drawn for each weight"},
      {"PERP", "bound 1.50 where the weight is masked in each step"},
      {"RANDLORA", "bound 3.50 for a square layer: bases of full rank on both sides, one trained"},
      {"FROD", "bound 2.00: V and U of full size in place of the weight"},
      {"OSF",
       "bound 5.50 at 256 rows: half of the directions trained and taken away; gradients "
       "projected"},
      {"SOKA", "terms to 90 % of the energy: hundreds for a random weight"},
      {"PHM",
       "bound 2.50: n = 4 blocks of a quarter of the weight each, for each of 4 parts of a row"},
      {"KADAPTATION", "bound 1.50: its dropout is on the elements of H, so H is written out"},
      {"LOHA", "bound 1.19: rank r² = 64"},
      {"VERA", "bound 1.50: rank 256, frozen"},
      {"PVERA", "bound 1.75: rank 256, frozen, twice on one side"},
      {"MSPLORA", "bound 1.33: rank 112"},
      {"SLORA", "bound 1.39: rank 136"},
      {"NLORA", "bound 1.42: rank 136 and a square factor"},
      {"PARALLEL_ADAPTER", "bound 2.50: width 512"},
      {"MAM", "bound 2.50: width 512"},
      {"HYPERFORMER", "weights of the adapter from a network in each step"},
      {"HYPERFORMER_PLUS_PLUS", "weights of the adapter from a network in each step"},
      {"INTRINSIC_DIMENSION",
       "its projection, a row of d normal numbers for each weight, is drawn anew in each pass"},
      {"SAID", "bound 1.50 and 4 Hadamard transforms of the size of the weight, log2 of it deep"},
      {"SVFT", "bound 3.00: U and Vᵀ of full size in place of the weight"},
      {"SVFIT", "bound 2.54: the singular vectors of both sides in place of the weight"},
      {"L4Q", "bound 1.50: gradient of the whole weight, quantised anew forward and backward"},
      {"LR_QAT", "bound 1.50: gradient of the whole weight, quantised anew forward and backward"},
      {"EFFICIENT_QAT", "bound 1.50: gradient of the whole weight, quantised in each pass"},
      {"SKETCHTUNE", "bound 1.50: gradient of the whole weight, summed by code"},
      {"GRADNORMLORP", "bound 1.50: gradient of the whole weight, normalised by rows in each pass"},
      {"MOELORA", "its contrastive loss writes out what every chosen expert gives a token"},
      {"SMORE", "each token picks its path: narrow products of gathered rows"},
      {"ADAMSS", "products as narrow as a cluster of rows"},
      {"BI_ADAPTER", "both weights quantised in each pass"},
      {"POLYHISTOR", "weights of the adapter out of Kronecker products in each step"},
      {"POLYHISTOR_LITE", "weights of the adapter out of Kronecker products in each step"},
      {"VL_PET", "a gate for each element, two more products"},
      {"DYT", "a gate for each token"},
      {"MOSA", "weights joined from those of experts by a map in each pass"},
      {"UT_ADAPTER", "a convolution along the tokens and two norms"},
      {"LORETTA_ADP", "chains of small cores contracted in each step"},
      {"BOFT", "rotates blocks of 4 numbers of each row: passes over x, no products"},
      {"GOFT", "log2(in) passes of rotations over each row"},
      {"QGOFT", "log2(in) passes of rotations over each row"},
      {"MOKA", "bound 1.18 by operations, in products of factors 8 to 128 wide"},
      {"SURM", "Fourier transforms of every row: n log n operations, not counted"},
      {"SHIRA",
       "65536 elements at random places, each 1 KiB from the second cache in each of 3 products: "
       "bound 1.23 to 1.30 by the rate of that cache, 150 to 200 GB/s"}};
  const auto it = bounds.find(name);
  return it == bounds.end() ? std::string_view{} : it->second;
}

/// The largest number not above `wanted` that divides both.
Index divisor(Index wanted, Index in, Index out) {
  while (in % wanted != 0 || out % wanted != 0) --wanted;
  return wanted;
}

/// A layer with everything around it that methods may sit on.
class Bed {
 public:
  enum class Kind { linear, hidden, norm, attention, prompt, embedding };
  static constexpr Kind kKinds[] = {Kind::linear,    Kind::hidden, Kind::norm,
                                    Kind::attention, Kind::prompt, Kind::embedding};

  Bed(const LayerSize& size, const DenseLinear& layer, Index rows, Kind kind)
      : kind_(kind), rows_(rows), layer_("model.layers.0.proj", AnyLinear(layer)) {
    const Index head = size.out % 64 == 0 ? 64 : size.out;
    table_.info.architecture = "llama";
    table_.info.layers = 1;
    table_.info.hidden_size = size.out;
    table_.info.heads = table_.info.kv_heads = size.out / head;
    table_.info.head_dim = head;
    table_.info.vocabulary = kVocabulary;
    switch (kind) {
      case Kind::linear:
        table_.linear = {&layer_};
        break;
      case Kind::hidden:
        hidden_[0] =
            HiddenSite("model.layers.0.mlp", size.out, HiddenRole::feed_forward, "down_proj");
        hidden_[1] =
            HiddenSite("model.layers.0.self_attn", size.out, HiddenRole::attention, "o_proj");
        hidden_[2] = HiddenSite("model.layers.0", size.out, HiddenRole::block);
        for (auto& site : hidden_) table_.hidden.push_back(&site);
        break;
      case Kind::norm: {
        BasicNorm<float> norm;
        norm.weight = Tensor::ones({size.out});
        norm_ = NormSite("model.layers.0.input_layernorm", norm);
        table_.norm = {&norm_};
        break;
      }
      case Kind::attention:
        table_.info.hidden_size = size.in;
        attention_ =
            AttentionSite("model.layers.0.self_attn", 0, size.out / head, size.out / head, head);
        table_.attention = {&attention_};
        break;
      case Kind::prompt:
        table_.info.hidden_size = size.in;
        prompt_ = PromptSite("", size.in);
        table_.prompt = &prompt_;
        [[fallthrough]];
      case Kind::embedding:
        embedding_ = EmbeddingSite(
            "model.embed_tokens",
            EmbeddingTable(bench::detail::random_tensor({kVocabulary, size.in}, 4, 0.02)));
        table_.embedding = {&embedding_};
        break;
    }
    context_->batch = 1;
    context_->seq_len = rows;
    for (Index i = 0; i < rows; ++i)
      context_->ids.push_back(static_cast<std::int32_t>(i * 37 % kVocabulary));
    context_->task_ids = {0};
  }
  SiteTable& table() { return table_; }
  std::shared_ptr<const ForwardContext> context() const { return context_; }
  Var operator()(const Var& x) {
    switch (kind_) {
      case Kind::linear:
        return layer_(x);
      case Kind::hidden: {
        auto y = layer_(x);
        for (auto& site : hidden_)
          if (!site.adapters().empty()) return site(y, y, y);
        return y;
      }
      case Kind::norm:
        return norm_(layer_(x));
      case Kind::attention: {
        const auto y = reshape(layer_(x), {1, x.rows(), layer_.out_features()});
        AttentionCall<float> call;
        call.input = call.q = call.k = call.v = y;
        call.options.heads = attention_.heads;
        call.options.kv_heads = attention_.kv_heads;
        call.options.scale = 0.125F;
        call.key = call.value = &layer_;
        return attention_(call);
      }
      case Kind::prompt:
        return layer_(prompt_(reshape(x, {1, x.rows(), x.cols()}), *context_));
      case Kind::embedding:
        return layer_(add(embedding_(x.tape(), context_->ids), x));
    }
    return x;
  }

 private:
  static constexpr Index kVocabulary = 1000;
  Kind kind_;
  Index rows_;
  LinearSite layer_;
  HiddenSite hidden_[3];
  NormSite norm_;
  AttentionSite attention_;
  PromptSite prompt_;
  EmbeddingSite embedding_;
  SiteTable table_;
  std::shared_ptr<ForwardContext> context_ = std::make_shared<ForwardContext>();
};

/// Everything that one measurement needs, alive as long as its Subject.
struct Place {
  Bed frozen, adapted;
  BasicAdapterModel<float> model;
  Place(const LayerSize& size, const DenseLinear& layer, Index rows, Bed::Kind kind)
      : frozen(size, layer, rows, kind),
        adapted(size, layer, rows, kind),
        model(adapted.table(), all_methods<float>()) {}
};

/// The configuration of a candidate at a place: the method's defaults, or its example where they
/// leave something open.
ConfigValue::Map fitted(const Candidate& candidate, bool example, Bed::Kind kind,
                        const LayerSize& size) {
  auto map = example ? candidate.entry->example : candidate.entry->defaults;
  for (const auto& [key, value] : candidate.config) map[key] = value;
  if (kind == Bed::Kind::linear && map.contains("target_modules") &&
      candidate.entry->info.family != "prompts")
    map["target_modules"] = ConfigValue::List{ConfigValue("proj")};
  if (map.contains("token_indices")) {
    ConfigValue::List tokens;
    for (int i = 0; i < 10; ++i) tokens.emplace_back(i);
    map["token_indices"] = tokens;
  }
  if (candidate.entry->info.peft_type == "C3A")
    map["block_size"] =
        divisor(static_cast<Index>(map.at("block_size").number()), size.in, size.out);
  return map;
}

/// Where a method is tried first: at a norm or a hidden state if it names that first, else at a
/// linear layer.
Bed::Kind first_place(std::string_view sites) {
  const auto first = sites.substr(0, sites.find(','));
  return first == "norm"     ? Bed::Kind::norm
         : first == "hidden" ? Bed::Kind::hidden
                             : Bed::Kind::linear;
}

/// The first place where the method goes, else a Subject with nothing but a remark.
Subject subject_of(const Candidate& candidate, const LayerSize& size, const DenseLinear& layer,
                   Index rows) {
  Subject subject;
  subject.method = candidate.name;
  subject.family = std::string(candidate.entry->info.family);
  std::string reason;
  std::vector<Bed::Kind> kinds(std::begin(Bed::kKinds), std::end(Bed::kKinds));
  std::stable_partition(kinds.begin(), kinds.end(), [&](const auto kind) {
    return kind == first_place(candidate.entry->info.sites);
  });
  const auto places = static_cast<Index>(kinds.size());
  for (Index attempt = 0; attempt < 2 * places; ++attempt) {
    const auto kind = kinds[static_cast<std::size_t>(attempt % places)];
    try {
      auto place = std::make_shared<Place>(size, layer, rows, kind);
      const auto before = MemoryPool::global().stats().bytes_in_use;
      TorchGenerator generator(7);
      auto& set =
          place->model.add("a", fitted(candidate, attempt >= places, kind, size), generator);
      subject.parameters = set.parameters();
      if (subject.parameters.empty()) continue;
      // Values that are no identity.
      for (const auto& p : subject.parameters) {
        auto value = p.value().clone();
        const auto noise = bench::detail::random_tensor(value.shape(), 11, 0.01);
        for (Index i = 0; i < value.size(); ++i) value[i] += noise[i];
        p.assign(std::move(value));
      }
      for (const auto& placed : set.parts()) placed.part->after_load();
      subject.held_bytes = MemoryPool::global().stats().bytes_in_use - before;
      Place* raw = place.get();
      subject.frozen = [raw](const Var& x) { return raw->frozen(x); };
      subject.adapted = [raw](const Var& x) { return raw->adapted(x); };
      subject.prepare = [raw](Tape& tape) { tape.set_context(raw->adapted.context()); };
      subject.loss = [&set](Tape& tape) { return set.auxiliary_loss(tape); };
      subject.owner = place;
      constexpr const char* kNames[] = {"",
                                        "hidden state behind the layer",
                                        "norm behind the layer",
                                        "attention behind the layer",
                                        "virtual tokens before the layer",
                                        "embedding before the layer"};
      subject.remark = kNames[static_cast<int>(kind)];
      const auto bound = bound_of(candidate.name);
      if (!bound.empty())
        subject.remark += (subject.remark.empty() ? "" : "; ") + std::string(bound);
      return subject;
    } catch (const Error& error) {
      if (reason.empty() || kind == Bed::Kind::linear) reason = error.what();
      if (std::string_view(error.what()).find("match none") == std::string_view::npos &&
          kind != Bed::Kind::linear && reason.find("match none") != std::string::npos)
        reason = error.what();
    }
  }
  subject.remark = reason;
  return subject;
}

std::vector<Candidate> candidates(const std::vector<std::string>& wanted) {
  std::vector<Candidate> all;
  const auto& registry = all_methods<float>();
  for (const auto& entry : registry.entries()) {
    all.push_back({std::string(entry.info.peft_type), &entry, {}});
    if (entry.info.peft_type == "LORA") {
      all.push_back({"DoRA", &entry, {{"use_dora", true}}});
      all.push_back({"LORA r=16", &entry, {{"r", 16}}});
      all.push_back({"DoRA r=16", &entry, {{"use_dora", true}, {"r", 16}}});
    }
  }
  if (wanted.empty()) return all;
  const auto upper = [](unsigned char c) { return std::toupper(c); };
  std::vector<Candidate> chosen;
  for (const auto& name : wanted) {
    const auto it = std::find_if(all.begin(), all.end(), [&](const auto& c) {
      return std::ranges::equal(c.name, name, {}, upper, upper);
    });
    if (it == all.end())
      throw ValueError(concat("--methods: ", name, " is not known; \"graft methods\" lists them"));
    chosen.push_back(*it);
  }
  return chosen;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("The cost of each adapter method over the frozen layer, as ratios.");
  bench::OverheadOptions options;
  options.add_to(app);
  std::vector<std::string> names;
  std::string from;
  bool plot_data = false;
  app.add_option("--from", from, "Show what an earlier run printed with --json")
      ->check(CLI::ExistingFile);
  app.add_flag("--plot-data", plot_data, "Method, forward and step of the first layer, by tabs");
  app.add_option("--methods", names, "peft_type of methods, separated by commas; all if not given")
      ->delimiter(',');
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  try {
    options.finish({"square", "smollm2-q", "smollm2-gate", "bert-base"}, {1, 16, 256});
    const auto chosen = candidates(names);
    std::vector<Overhead> list;
    if (!from.empty()) {
      std::ifstream file(from);
      list = bench::overhead_from(io::Json::parse(file));
      options.layers.clear();
    }
    for (const auto& size : options.layers) {
      const auto layer = bench::random_layer(size);
      for (const auto& candidate : chosen) {
        for (const Index rows : options.rows) {
          const auto subject = subject_of(candidate, size, layer, rows);
          Overhead result;
          result.method = subject.method;
          result.family = subject.family;
          result.rows = rows;
          result.remark = subject.remark;
          if (subject.owner) {
            try {
              result = bench::measure(subject, bench::detail::random_tensor({rows, size.in}, 5),
                                      options.seconds);
            } catch (const Error& error) {
              result.remark = error.what();
            }
          }
          result.layer = size.name;
          std::fprintf(stderr, "%s, %s, %td rows: %.2f\n", size.name.c_str(), result.method.c_str(),
                       rows, result.step);
          list.push_back(std::move(result));
        }
      }
    }
    if (plot_data)
      std::fputs(bench::overhead_plot_data(std::move(list)).c_str(), stdout);
    else
      options.print(list);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_overhead: %s\n", error.what());
    return 2;
  }
}
