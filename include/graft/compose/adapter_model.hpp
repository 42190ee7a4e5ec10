#pragma once

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/full_copy.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/selection/trainable_tokens.hpp"
#include "graft/compose/adapter_set.hpp"
#include "graft/compose/config_json.hpp"
#include "graft/compose/method_registry.hpp"
#include "graft/compose/quantised_weight.hpp"
#include "graft/compose/tied_head.hpp"
#include "graft/io/atomic_file.hpp"
#include "graft/io/safetensors.hpp"
#include "graft/layers/quantized_linear.hpp"

namespace graft::inline v0_1 {

/// What happened when the tensors of a checkpoint met those of an adapter.
struct LoadReport {
  std::vector<std::string> missing;     ///< the adapter has them, the file does not
  std::vector<std::string> unexpected;  ///< the file has them, the adapter does not
  std::vector<std::string> mismatched;  ///< "name: expected [..], found [..]"
  std::vector<std::string> unequal;  ///< "name and name": copies of one shared tensor that differ
  bool ok() const {
    return missing.empty() && unexpected.empty() && mismatched.empty() && unequal.empty();
  }
  std::string text() const {
    std::string result;
    const auto list = [&](const char* what, const std::vector<std::string>& names) {
      if (names.empty()) return;
      result += concat(result.empty() ? "" : "; ", names.size(), " ", what, ": ");
      for (std::size_t i = 0; i < names.size() && i < 5; ++i)
        result += (i == 0 ? "" : ", ") + names[i];
      if (names.size() > 5) result += ", …";
    };
    list("missing", missing);
    list("unexpected", unexpected);
    list("of another shape", mismatched);
    list("unequal copies of what layers share", unequal);
    return result;
  }
};

/// Named adapters on the sites of one model: add, load, save, activate one or several, switch off,
/// merge.
///
/// Works through the sites and the registry of tensors only; it knows neither the model nor any
/// method. The site table, and the model behind it, must outlive this.
template <std::floating_point T>
class BasicAdapterModel {
 public:
  BasicAdapterModel(BasicSiteTable<T>& table, const MethodRegistry<T>& registry)
      : table_(&table), registry_(&registry) {}
  BasicAdapterModel(const BasicAdapterModel&) = delete;
  BasicAdapterModel& operator=(const BasicAdapterModel&) = delete;
  ~BasicAdapterModel() {
    while (!sets_.empty()) remove(sets_.back()->name());
  }

  /// Makes an adapter from a configuration and activates it alone. Values are drawn from
  /// `generator` in the order in which Hugging Face PEFT draws them. `calibration`: what inits that
  /// look at data need; see `add_calibrated`. @throws ValueError for an unknown method, a bad
  /// configuration, targets that match nothing
  AdapterSet<T>& add(const std::string& name, const ConfigValue::Map& config,
                     TorchGenerator& generator, const Calibration<T>* calibration = nullptr) {
    return build(name, config, generator, false, calibration);
  }
  /// The same from a method's own configuration.
  template <class Config>
    requires requires { Config::kPeftType; }
  AdapterSet<T>& add(const std::string& name, Config config, std::uint64_t seed = 0) {
    ConfigValue::Map map;
    ConfigWriter writer(map);
    config.fields(writer);
    map["peft_type"] = std::string(Config::kPeftType);
    TorchGenerator generator(seed);
    return build(name, map, generator, false);
  }

  /// Reads a folder with adapter_config.json and adapter_model.safetensors, as Hugging Face PEFT
  /// writes it.
  /// @throws IoError for unreadable files; ValueError with the report if `strict` and tensors do
  /// not fit.
  AdapterSet<T>& load(const std::string& name, const std::filesystem::path& folder,
                      bool strict = true, LoadReport* report = nullptr) {
    auto config = read_config_file(folder / "adapter_config.json");
    const auto file = io::SafetensorsFile::open(folder / "adapter_model.safetensors");
    load_experts(config, folder);
    name_tied_layers(config, file);
    TorchGenerator generator;
    auto& set = build(name, config, generator, true);
    try {
      const LoadReport result = read_tensors(set, file);
      if (report != nullptr) *report = result;
      if (strict && !result.ok())
        throw ValueError(
            concat((folder / "adapter_model.safetensors").string(), ": ", result.text()));
    } catch (...) {
      remove(name);
      throw;
    }
    return set;
  }

  /// Copies tensors of a file into an adapter that exists. Parts that adapt their shapes are asked
  /// first.
  static LoadReport read_tensors(AdapterSet<T>& set, const io::SafetensorsFile& file) {
    std::map<std::string, Shape> shapes;
    for (const auto& view : file.tensors()) {
      if (view.shape.size() > static_cast<std::size_t>(Shape::kMaxRank))
        throw IoError(concat("tensor ", view.name, ": more than ", Shape::kMaxRank, " axes"));
      shapes.emplace(view.name, Shape(view.shape.begin(), view.shape.end()));
    }
    for (const auto& placed : set.parts()) {
      const auto find = [&](std::string_view tensor) -> const Shape* {
        AdapterTensor<T> probe;
        probe.name = tensor;
        for (const auto scope : {AdapterTensor<T>::Scope::site, AdapterTensor<T>::Scope::model,
                                 AdapterTensor<T>::Scope::root}) {
          probe.scope = scope;
          const auto it = shapes.find(set.key_of(placed.path, probe));
          if (it != shapes.end()) return &it->second;
        }
        return nullptr;
      };
      placed.part->before_load(find);
    }
    LoadReport report;
    std::vector<std::string> used;
    std::map<const void*, std::string> holders;  // of tensors that several layers share
    for (const auto& [key, tensor] : set.tensors()) {
      if (!tensor.saved) continue;
      const auto* view = file.find(key);
      if (view == nullptr) {
        if (!tensor.alias) report.missing.push_back(key);
        continue;
      }
      used.push_back(key);
      const Shape found(view->shape.begin(), view->shape.end());
      const Shape expected = tensor.index                   ? tensor.index->shape
                             : tensor.file_shape.rank() > 0 ? tensor.file_shape
                                                            : tensor.parameter.shape();
      if (found != expected) {
        report.mismatched.push_back(
            concat(key, ": expected ", expected.text(), ", found ", found.text()));
        continue;
      }
      if (tensor.index) {
        tensor.index->values = io::to_i64(*view);
      } else {
        const auto holder = holders.find(tensor.parameter.id());
        if (holder == holders.end()) {
          if (!tensor.alias) holders.emplace(tensor.parameter.id(), key);
        } else if (tensor.alias) {
          continue;  // the tensor's own name goes before it
        } else if (!io::same_values(file.at(holder->second), *view)) {
          report.unequal.push_back(concat(holder->second, " and ", key));
          continue;
        }
        BasicTensor<T> value = BasicTensor<T>::empty(tensor.parameter.shape());
        if constexpr (std::is_same_v<T, float>)
          io::to_f32(*view, value.span());
        else
          value = BasicTensor<T>::from(io::to_f64(*view), tensor.parameter.shape());
        tensor.parameter.assign(std::move(value));
      }
    }
    for (const auto& view : file.tensors()) {
      if (!is_copy(view, file, used) && !is_followed(set, view, file, used) &&
          std::find(used.begin(), used.end(), view.name) == used.end())
        report.unexpected.push_back(view.name);
    }
    for (const auto& placed : set.parts()) placed.part->after_load();
    return report;
  }

  /// Whether PEFT stored a tensor that the model or another key of the file has already: the frozen
  /// table of an adapted embedding, trained rows under each of the tied layers, biases of layers
  /// that are trained whole under each of their two names.
  static bool is_copy(const io::TensorView& view, const io::SafetensorsFile& file,
                      const std::vector<std::string>& used) {
    const std::string& name = view.name;
    if (name.ends_with(".base_layer.weight") ||
        (name.ends_with(".bias") && name.find(".original_module.") != name.npos))
      return true;
    static constexpr std::string_view kWhole = ".modules_to_save.",
                                      kRows = "trainable_tokens_delta";
    if (const auto at = name.find(kWhole); at != std::string::npos) {
      // Layers inside of a module have the adapter's name before theirs.
      const auto rest = name.substr(at + kWhole.size());
      const auto inner = rest.substr(rest.find('.') + 1);
      return std::any_of(used.begin(), used.end(), [&](const std::string& key) {
        return key == name.substr(0, at + 1) + rest || key == name.substr(0, at + 1) + inner;
      });
    }
    return name.ends_with(kRows) && std::any_of(used.begin(), used.end(), [&](const auto& key) {
             const auto* other = file.find(key);
             return key.ends_with(kRows) && other != nullptr && io::same_values(*other, view);
           });
  }

  /// Whether PEFT stored a tensor of a layer that follows another one: it has the values of one of
  /// that layer's tensors, in an order of its own.
  static bool is_followed(const AdapterSet<T>& set, const io::TensorView& view,
                          const io::SafetensorsFile& file, const std::vector<std::string>& used) {
    const auto below = [&](const std::string& key, const std::string& path) {
      return key.starts_with(concat(set.info().path_prefix, path, "."));
    };
    return std::any_of(set.followers().begin(), set.followers().end(), [&](const auto& follower) {
      return below(view.name, follower.first) &&
             std::any_of(used.begin(), used.end(), [&](const std::string& key) {
               return below(key, follower.second) && file.at(key).elements() == view.elements();
             });
    });
  }

  /// Writes adapter_config.json and adapter_model.safetensors, each atomically. `whole`: what
  /// training needs to go on, where a finished adapter is less (a reduced rank). @throws IoError
  void save(const std::string& name, const std::filesystem::path& folder,
            bool whole = false) const {
    const auto& set = at(name);
    std::filesystem::create_directories(folder);
    write_tensors(whole ? set.tensors() : set.file_tensors(), folder / "adapter_model.safetensors");
    auto config = set.config();
    config["peft_type"] = std::string(set.info().peft_type);
    config["inference_mode"] = true;
    const std::string text = io::json_text(config_json(config), 2) + "\n";
    io::write_file_atomically(folder / "adapter_config.json", std::as_bytes(std::span(text)));
  }
  static void write_tensors(const std::vector<KeyedTensor<T>>& tensors,
                            const std::filesystem::path& path) {
    std::vector<io::TensorToWrite> list;
    std::vector<std::vector<std::byte>> converted;
    converted.reserve(tensors.size());
    for (const auto& [key, tensor] : tensors) {
      if (!tensor.saved || (tensor.alias && !tensor.written)) continue;
      const Shape shape = tensor.index                   ? tensor.index->shape
                          : tensor.file_shape.rank() > 0 ? tensor.file_shape
                                                         : tensor.parameter.shape();
      io::TensorToWrite item;
      item.name = key;
      item.shape.assign(shape.begin(), shape.end());
      if (tensor.index) {
        converted.push_back(index_bytes(*tensor.index));
        item.dtype = tensor.index->type == IndexTensor::Type::u8    ? io::DType::u8
                     : tensor.index->type == IndexTensor::Type::i16 ? io::DType::i16
                     : tensor.index->type == IndexTensor::Type::i32 ? io::DType::i32
                                                                    : io::DType::i64;
        item.data = converted.back();
      } else if constexpr (std::is_same_v<T, float>) {
        item.dtype = io::DType::f32;
        item.data = std::as_bytes(tensor.parameter.value().span());
      } else {
        const auto as_float = tensor.parameter.value().template cast<float>();
        const auto bytes = std::as_bytes(as_float.span());
        converted.emplace_back(bytes.begin(), bytes.end());
        item.dtype = io::DType::f32;
        item.data = converted.back();
      }
      list.push_back(std::move(item));
    }
    io::write_safetensors(path, list);
  }

  void remove(std::string name) {
    const auto it = find(name);
    if (it == sets_.end()) throw ValueError(concat("adapter '", name, "' does not exist"));
    const auto drop = [&](auto& sites) {
      for (auto* site : sites)
        std::erase_if(site->adapters(), [&](const auto& a) { return a.name == name; });
    };
    drop(table_->linear);
    drop(table_->embedding);
    drop(table_->norm);
    drop(table_->hidden);
    drop(table_->attention);
    if (table_->prompt != nullptr)
      std::erase_if(table_->prompt->adapters(), [&](const auto& a) { return a.name == name; });
    if (table_->pass != nullptr)
      std::erase_if(table_->pass->adapters(), [&](const auto& a) { return a.name == name; });
    if (table_->stack != nullptr)
      std::erase_if(table_->stack->adapters(), [&](const auto& a) { return a.name == name; });
    const auto drop_bias = [&](auto& sites) {
      for (auto* site : sites)
        std::erase_if(site->biases.list, [&](const auto& bias) { return bias.first == name; });
    };
    drop_bias(table_->linear);
    drop_bias(table_->norm);
    sets_.erase(it);
    std::erase(active_, name);
    activate(active_);
  }

  /// Runs with these adapters, in this order; none: the frozen model. @throws ValueError for a name
  /// that does not exist.
  void activate(std::vector<std::string> names) {
    for (const auto& n : names) at(n);
    active_ = std::move(names);
    apply_active(active_);
  }
  const std::vector<std::string>& active() const { return active_; }
  /// Runs the frozen model while this object lives.
  class Disabled {
   public:
    explicit Disabled(BasicAdapterModel& model) : model_(&model) { model_->apply_active({}); }
    ~Disabled() { model_->apply_active(model_->active_); }
    Disabled(const Disabled&) = delete;
    Disabled& operator=(const Disabled&) = delete;

   private:
    BasicAdapterModel* model_;
  };
  [[nodiscard]] Disabled disabled() { return Disabled(*this); }

  /// Gives adapters that start from a text its ids: (text, name of a tokenizer or empty) -> ids,
  /// with the special tokens.
  void set_tokenizer(
      std::function<std::vector<std::int32_t>(const std::string&, const std::string&)> tokenize) {
    tokenize_ = std::move(tokenize);
  }

  bool contains(const std::string& name) const { return find(name) != sets_.end(); }
  /// @throws ValueError that lists the adapters there are.
  AdapterSet<T>& at(const std::string& name) const {
    const auto it = find(name);
    if (it != sets_.end()) return **it;
    std::string known;
    for (const auto& s : sets_) known += (known.empty() ? "" : ", ") + s->name();
    throw ValueError(
        concat("adapter '", name, "' does not exist; there are: ", known.empty() ? "none" : known));
  }
  std::vector<std::string> names() const {
    std::vector<std::string> list;
    for (const auto& s : sets_) list.push_back(s->name());
    return list;
  }
  BasicSiteTable<T>& sites() const { return *table_; }
  const MethodRegistry<T>& registry() const { return *registry_; }

  /// Trained parameters of the active adapters, each once.
  std::vector<BasicParameter<T>> parameters() const {
    std::vector<BasicParameter<T>> list;
    for (const auto& n : active_)
      for (auto& p : at(n).parameters())
        if (std::find(list.begin(), list.end(), p) == list.end()) list.push_back(p);
    return list;
  }
  /// Sum of the auxiliary losses of the active adapters; empty if there is none.
  BasicVar<T> auxiliary_loss(BasicTape<T>& tape) const {
    BasicVar<T> total;
    for (const auto& n : active_) {
      auto term = at(n).auxiliary_loss(tape);
      if (term) total = total ? graft::add(total, term) : term;
    }
    return total;
  }

  /// What a training step minimises beside auxiliary losses: the loss of a pass, or what the active
  /// adapter makes of several. @throws ValueError if two active adapters have an objective
  BasicVar<T> training_loss(BasicTape<T>& tape, const TrainingPasses<T>& passes) const {
    const typename AdapterSet<T>::Objective* objective = nullptr;
    for (const auto& n : active_) {
      if (!at(n).objective()) continue;
      if (objective != nullptr)
        throw ValueError(concat("adapter '", n,
                                "': it and another active one both decide about the passes of a "
                                "training step"));
      objective = &at(n).objective();
    }
    return objective == nullptr ? passes.loss() : (*objective)(tape, passes);
  }

  struct MergeOptions {
    bool dequantize = false;  ///< allow a quantised weight to become a dense one
  };
  /// Folds the active adapters into the frozen weights. The old weights are kept, and `unmerge`
  /// puts them back bit for bit.
  /// @throws ValueError if a part cannot be merged, or a weight is quantised and `dequantize` is
  /// not set; nothing is changed then.
  void merge(MergeOptions options = {}) { install(folded(active_, options)); }
  /// Task arithmetic (Ilharco et al. 2022, arXiv:2212.04089) with any methods that merge: every
  /// frozen tensor becomes W + Σ wᵢ (Wᵢ − W), where Wᵢ is what it is with adapter i merged alone. A
  /// negative weight takes away what an adapter learnt. `unmerge` puts the old weights back.
  /// @throws ValueError as merge
  void merge_weighted(const std::vector<std::pair<std::string, double>>& weighted,
                      MergeOptions options = {}) {
    Folded sum;
    const auto put = [](auto* tensor, const BasicTensor<T>& base, const BasicTensor<T>& value,
                        double weight) {
      if (!value) return;
      if (!*tensor) *tensor = base ? base.clone() : BasicTensor<T>::zeros(value.shape());
      for (Index i = 0; i < value.size(); ++i)
        (*tensor)[i] += static_cast<T>(
            weight * (static_cast<double>(value[i]) - (base ? static_cast<double>(base[i]) : 0)));
    };
    for (const auto& [name, weight] : weighted) {
      const Folded one = folded({name}, options);
      for (const auto& [site, layer] : one.linear) {
        auto& target = sum.linear[site];
        put(&target.weight, site->base().dense_weight(), layer.weight, weight);
        put(&target.bias, site->base().bias(), layer.bias, weight);
      }
      for (const auto& [site, table] : one.embedding)
        put(&sum.embedding[site], site->table().dense(), table, weight);
      for (const auto& [site, norm] : one.norm) {
        auto& target = sum.norm.try_emplace(site, site->norm()).first->second;
        if (target.weight && target.weight.data() == site->norm().weight.data())
          target.weight = target.weight.clone();
        if (target.bias && target.bias.data() == site->norm().bias.data())
          target.bias = target.bias.clone();
        put(&target.weight, site->norm().weight, norm.weight, weight);
        put(&target.bias, site->norm().bias, norm.bias, weight);
      }
    }
    for (auto& [site, layer] : sum.linear)
      if (!layer.bias) layer.bias = site->base().bias();
    install(sum);
  }
  /// What an adapter alone adds to the frozen tensors, by the paths of their sites.
  struct Deltas {
    std::map<std::string, BasicTensor<T>> weight;     ///< of linear layers [out, in]
    std::map<std::string, BasicTensor<T>> bias;       ///< of linear layers, where it changes
    std::map<std::string, BasicTensor<T>> embedding;  ///< [rows, dim]
    std::set<std::string> norms;                      ///< paths of norms that it changes
  };
  /// @throws ValueError if the adapter cannot be merged. Quantised weights are decoded for it.
  Deltas deltas(const std::string& name) {
    const auto minus = [](const BasicTensor<T>& a, const BasicTensor<T>& b) {
      auto d = a.clone();
      if (b)
        for (Index i = 0; i < d.size(); ++i) d[i] -= b[i];
      return d;
    };
    Deltas result;
    const Folded one = folded({name}, {.dequantize = true});
    for (const auto& [site, layer] : one.linear) {
      if (!site->expert.parameter.empty())
        throw ValueError(concat("deltas: ", site->path(), ".", site->expert.parameter,
                                " stacks the matrices of several experts"));
      result.weight[site->path()] = minus(layer.weight, site->base().dense_weight());
      if (!layer.bias) continue;
      auto bias = minus(layer.bias, site->base().bias());
      if (std::any_of(bias.begin(), bias.end(), [](T v) { return v != 0; }))
        result.bias[site->path()] = bias;
    }
    for (const auto& [site, table] : one.embedding)
      result.embedding[site->path()] = minus(table, site->table().dense());
    for (const auto& [site, norm] : one.norm) result.norms.insert(site->path());
    return result;
  }
  void unmerge() {
    for (auto& f : merged_) f();
    merged_.clear();
    apply_active(active_);
  }
  bool merged() const { return !merged_.empty(); }

  /// Whether the end of a path, or of a module around it, is one of `modules`; PEFT does not ask
  /// for a whole name: "norm" means "input_layernorm" too.
  static bool inside(const std::string& path, const std::vector<std::string>& modules) {
    for (std::string_view rest = path;;) {
      for (const auto& m : modules)
        if (rest.ends_with(m)) return true;
      const auto dot = rest.rfind('.');
      if (dot == std::string_view::npos) return false;
      rest = rest.substr(0, dot);
    }
  }

 private:
  /// Weight and bias of a linear layer.
  struct FoldedLayer {
    BasicTensor<T> weight, bias;
  };
  /// What the frozen tensors become with adapters folded into them.
  struct Folded {
    std::map<BasicLinearSite<T>*, FoldedLayer> linear;
    std::map<BasicEmbeddingSite<T>*, BasicTensor<T>> embedding;
    std::map<BasicNormSite<T>*, BasicNorm<T>> norm;
  };
  /// Runs with other adapters while it lives.
  class Switched {
   public:
    Switched(BasicAdapterModel& model, const std::vector<std::string>& names) : model_(&model) {
      model_->apply_active(names);
    }
    ~Switched() { model_->apply_active(model_->active_); }
    Switched(const Switched&) = delete;
    Switched& operator=(const Switched&) = delete;

   private:
    BasicAdapterModel* model_;
  };

  Folded folded(const std::vector<std::string>& names, MergeOptions options) {
    if (!merged_.empty()) throw ValueError("merge: adapters are merged already; unmerge first");
    for (const auto& n : names)
      for (const auto& placed : at(n).parts())
        if (const std::string reason = placed.part->merge_reason(); !reason.empty())
          throw ValueError(concat("merge: ", placed.path, ": ", reason));
    for (auto* s : table_->hidden) refuse(*s, names);
    for (auto* s : table_->attention) refuse(*s, names);
    if (table_->prompt != nullptr) refuse(*table_->prompt, names);
    if (table_->pass != nullptr) refuse(*table_->pass, names);
    if (table_->stack != nullptr) refuse(*table_->stack, names);
    const Switched now(*this, names);
    Folded result;
    for (auto* site : table_->linear) {
      if (site->chain().empty() && !site->biases.active) continue;
      if constexpr (std::is_same_v<T, float>) {
        if (!options.dequantize && site->base().template as<QuantizedLinear>() != nullptr)
          throw ValueError(concat("merge: ", site->path(),
                                  " is quantised; merging would make it dense: allow that "
                                  "with dequantize, or keep the adapter beside the base"));
      }
      const auto layer = merged_layer(*site);
      result.linear[site] = {layer.dense_weight(), layer.bias()};
    }
    for (auto* site : table_->embedding)
      if (!site->chain().empty()) result.embedding[site] = merged_table(*site);
    for (auto* site : table_->norm) {
      auto norm = site->norm();
      bool changed = false;
      for (const auto& n : names)
        for (const auto& named : site->adapters())
          if (named.name == n) {
            const auto* part = dynamic_cast<const NormPart<T>*>(named.adapter.get());
            auto merged = part == nullptr ? std::nullopt : part->merged(site->norm());
            if (!merged)
              throw ValueError(concat("merge: the adapter of ", site->path(), " cannot be merged"));
            norm = *merged;
            changed = true;
          }
      if (site->biases.active) {
        norm.bias = site->biases.active.value().clone();
        changed = true;
      }
      if (changed) result.norm[site] = norm;
    }
    return result;
  }
  /// Puts folded tensors in place of the frozen ones.
  void install(const Folded& folded) {
    std::vector<std::function<void()>> undo;
    for (const auto& [site, layer] : folded.linear) {
      undo.push_back([s = site, old = site->base()] { s->set_base(old); });
      site->set_base(BasicDenseLinear<T>(layer.weight, layer.bias));
    }
    for (const auto& [site, table] : folded.embedding) {
      undo.push_back([s = site, old = site->table()] { s->set_table(old); });
      site->set_table(BasicEmbeddingTable<T>(table));
    }
    for (const auto& [site, norm] : folded.norm) {
      undo.push_back([s = site, old = site->norm()] { s->set_norm(old); });
      site->set_norm(norm);
    }
    merged_ = std::move(undo);
    apply_active({});
  }

  using Sets = std::vector<std::unique_ptr<AdapterSet<T>>>;

  typename Sets::const_iterator find(const std::string& name) const {
    return std::find_if(sets_.begin(), sets_.end(),
                        [&](const auto& s) { return s->name() == name; });
  }

  AdapterSet<T>& build(const std::string& name, const ConfigValue::Map& given,
                       TorchGenerator& generator, bool loading,
                       const Calibration<T>* calibration = nullptr) {
    if (contains(name)) throw ValueError(concat("adapter '", name, "' exists already"));
    const auto type = given.find("peft_type");
    const std::string* peft_type =
        type == given.end() ? nullptr : type->second.template get_if<std::string>();
    if (peft_type == nullptr) throw ValueError("adapter config: field 'peft_type' is missing");
    const auto& entry = registry_->at(*peft_type);
    auto config = entry.written;
    for (const auto& [key, value] : given) {
      const auto known = entry.defaults.find(key);
      if (config.contains(key) || known == entry.defaults.end() || known->second != value)
        config[key] = value;
    }
    const bool tied = tie_targets(config);
    auto set = std::make_unique<AdapterSet<T>>(name, entry.info, config);
    SharedParameters<T> shared;
    InitContext<T> context{generator, shared,      loading, name, calibration, &quantised_weight<T>,
                           tokenize_, &read_tensor};
    sets_.push_back(std::move(set));
    auto& added = *sets_.back();
    context.parts_made = [&] {
      if (tied) drop_heads(added);
      drop_full_modules(added);
    };
    try {
      entry.build(added, *table_, context);
      if (tied) drop_heads(added);
      add_full_modules(added);
      add_trainable_tokens(added, context);
      tie_heads(added, tied);
      add_biases(added);
      if (tied) keep_tied_names(added, given);
    } catch (...) {
      remove(name);
      throw;
    }
    activate({name});
    return added;
  }

  /// Loads the adapters that a configuration needs and the model lacks, from the folders that it
  /// names: as they are, or below the adapter's own folder or `experts` in it.
  void load_experts(const ConfigValue::Map& config, const std::filesystem::path& folder) {
    const auto type = config.find("peft_type");
    const auto* name = type == config.end() ? nullptr : type->second.template get_if<std::string>();
    if (name == nullptr || !registry_->contains(*name)) return;
    const auto& entry = registry_->at(*name);
    if (!entry.experts) return;
    for (const auto& [expert, path] : entry.experts(config)) {
      if (contains(expert)) continue;
      for (const auto& place :
           {std::filesystem::path(path), folder / path, folder / "experts" / path})
        if (!contains(expert) && std::filesystem::exists(place / "adapter_config.json"))
          load(expert, place);
    }
  }

  static BasicTensor<T> read_tensor(const std::string& path, const std::string& name) {
    const auto file = io::SafetensorsFile::open(path);
    const auto& view = file.at(name);
    const Shape shape(view.shape.begin(), view.shape.end());
    if constexpr (std::is_same_v<T, float>)
      return BasicTensor<T>::from(io::to_f32(view), shape);
    else
      return BasicTensor<T>::from(io::to_f64(view), shape);
  }

  /// Names of modules that are trained whole beside the adapter.
  static std::vector<std::string> full_modules(const AdapterSet<T>& set) {
    std::vector<std::string> modules;
    const auto it = set.given_config().find("modules_to_save");
    if (it != set.given_config().end()) detail::read_config("modules_to_save", it->second, modules);
    return modules;
  }
  template <class Site>
  static void drop_parts(AdapterSet<T>& set, Site& site) {
    std::erase_if(site.adapters(), [&](const auto& a) { return a.name == set.name(); });
    set.remove_parts(site.path());
  }
  void drop_full_modules(AdapterSet<T>& set) {
    const auto modules = full_modules(set);
    if (modules.empty()) return;
    const auto drop = [&](const auto& sites) {
      for (auto* site : sites)
        if (inside(site->path(), modules)) drop_parts(set, *site);
    };
    drop(table_->embedding);
    drop(table_->linear);
    drop(table_->norm);
  }
  void add_full_modules(AdapterSet<T>& set) {
    const auto modules = full_modules(set);
    if (modules.empty()) return;
    bool found = false;
    const auto place = [&](auto* site, auto part) {
      found = true;
      drop_parts(set, *site);
      site->adapters().push_back({set.name(), part});
      set.add_part(site->path(), part);
    };
    for (auto* site : table_->embedding)
      if (inside(site->path(), modules))
        place(site, std::make_shared<FullEmbedding<T>>(site->table().dense(), site->padding_index));
    for (auto* site : table_->linear)
      if (inside(site->path(), modules)) {
        if (!site->expert.parameter.empty())
          throw ValueError(
              concat("modules_to_save: the experts of ", site->path(), " cannot be trained whole"));
        place(site,
              std::make_shared<FullLinear<T>>(site->base().dense_weight(), site->base().bias(),
                                              site->conv, site->fan_in_fan_out));
      }
    for (auto* site : table_->norm)
      if (inside(site->path(), modules)) place(site, std::make_shared<FullNorm<T>>(site->norm()));
    if (!found) throw ValueError(concat("modules_to_save: '", modules[0], "' matches no module"));
  }
  /// Rows of embeddings (and of output layers) that are trained beside the adapter
  /// (`trainable_token_indices`): a list for the input embedding, or lists by module name.
  void add_trainable_tokens(AdapterSet<T>& set, InitContext<T>& context) {
    const auto& config = set.given_config();
    const auto it = config.find("trainable_token_indices");
    if (it == config.end() || it->second.is_null()) return;
    std::map<std::string, std::vector<Index>> tokens;
    if (it->second.template get_if<ConfigValue::Map>() != nullptr) {
      detail::read_config("trainable_token_indices", it->second, tokens);
    } else {
      if (table_->embedding.empty())
        throw ValueError("trainable_token_indices: the model has no embedding");
      detail::read_config("trainable_token_indices", it->second,
                          tokens[table_->embedding.front()->path()]);
    }
    const auto whole = full_modules(set);
    for (const auto& [name, indices] : tokens) {
      TrainableTokensConfig rows;
      rows.token_indices = indices;
      bool found = false;
      const auto place = [&](auto* site, auto part) {
        if (inside(site->path(), whole))
          throw ValueError(concat("trainable_token_indices: ", site->path(),
                                  " is trained whole already (modules_to_save)"));
        found = true;
        site->adapters().push_back({set.name(), part});
        set.add_part(site->path(), part);
      };
      for (auto* site : table_->embedding)
        if (has_suffix(site->path(), name))
          place(site, embedding_part(BasicTrainableTokens<T>(
                          rows, detail::embedding_site_info(*site), context, "token_adapter.")));
      for (auto* site : table_->linear) {
        if (!has_suffix(site->path(), name)) continue;
        if (is_tied_head(*site, *table_) && std::any_of(tokens.begin(), tokens.end(), [&](auto& t) {
              return has_suffix(table_->embedding.front()->path(), t.first) && t.second == indices;
            })) {
          found = true;  // follows the embedding
          continue;
        }
        place(site, std::make_shared<BasicTrainableTokensHead<T>>(
                        rows.token_indices,
                        detail::token_rows<T>(
                            rows, site->path(), site->out_features(), site->in_features(),
                            [site] { return site->base().dense_weight(); }, context),
                        "token_adapter.trainable_tokens_delta"));
      }
      if (!found)
        throw ValueError(concat("trainable_token_indices: '", name, "' matches no module"));
    }
  }
  static bool is_set(const ConfigValue::Map& config, const std::string& flag) {
    const auto it = config.find(flag);
    const bool* value = it == config.end() ? nullptr : it->second.template get_if<bool>();
    return value != nullptr && *value;
  }
  static constexpr const char* kTiedFields[] = {"modules_to_save", "target_modules"};
  /// Whether a name in a configuration is one by which PEFT knows layers that share a table.
  static bool is_tied_name(const ConfigValue& value) {
    const auto* name = value.template get_if<std::string>();
    return name != nullptr && (last_part(*name) == "embed_tokens" || last_part(*name) == "lm_head");
  }
  static ConfigValue::List* list_of(ConfigValue::Map& config, const char* field) {
    const auto it = config.find(field);
    return it == config.end() ? nullptr : it->second.template get_if<ConfigValue::List>();
  }
  static bool names_any(const ConfigValue& value, const std::vector<std::string>& paths) {
    const auto* name = value.template get_if<std::string>();
    return name != nullptr && std::any_of(paths.begin(), paths.end(), [&](const auto& path) {
             return has_suffix(path, *name);
           });
  }
  /// Paths of the layers over the rows of the first embedding.
  std::vector<std::string> tied_layers() const {
    std::vector<std::string> paths;
    for (const auto* site : table_->linear)
      if (is_tied_head(*site, *table_)) paths.push_back(site->path());
    for (const auto* site : table_->embedding)
      if (is_tied_embedding(*site, *table_)) paths.push_back(site->path());
    return paths;
  }
  /// Where tied weights are asked for, whoever names the embedding or a layer over its rows means
  /// all of them: output layers follow the embedding, and so do other embeddings if it is trained
  /// whole; else they have parts of their own, as in PEFT. Says whether one is named, by the names
  /// that PEFT listens to.
  bool tie_targets(ConfigValue::Map& config) const {
    const auto layers = tied_layers();
    if (!is_set(config, "ensure_weight_tying") || layers.empty()) return false;
    const std::vector<std::string> whole{table_->embedding.front()->path()};
    auto targets = whole;
    for (const auto* site : table_->embedding)
      if (is_tied_embedding(*site, *table_)) targets.push_back(site->path());
    bool named = false;
    for (const char* field : kTiedFields) {
      auto* list = list_of(config, field);
      const auto& embeddings = field == std::string_view("target_modules") ? targets : whole;
      if (list == nullptr || std::none_of(list->begin(), list->end(), is_tied_name)) continue;
      named = true;
      std::erase_if(*list, [&](const ConfigValue& value) { return names_any(value, layers); });
      for (const auto& path : embeddings)
        if (std::none_of(list->begin(), list->end(),
                         [&](const ConfigValue& value) { return names_any(value, {path}); }))
          list->push_back(ConfigValue(path));
    }
    const auto it = config.find("target_modules");
    auto* pattern = it == config.end() ? nullptr : it->second.template get_if<std::string>();
    if (pattern == nullptr ||
        (!full_match(*pattern, "embed_tokens") && !full_match(*pattern, "lm_head")))
      return named;
    std::string also;
    for (const auto& path : targets) {
      also += "|^";
      for (const char c : path) also += c == '.' ? std::string("\\.") : std::string(1, c);
      also += "$";
    }
    also += ")";
    if (!pattern->ends_with(also)) *pattern = concat("(?:", *pattern, also);
    return true;
  }
  /// PEFT's files name the embedding alone, also where that does not ask for tied layers; that
  /// there were some the tensors say.
  void name_tied_layers(ConfigValue::Map& config, const io::SafetensorsFile& file) const {
    if (!is_set(config, "ensure_weight_tying")) return;
    for (const auto& path : tied_layers()) {
      const bool stored =
          std::any_of(file.tensors().begin(), file.tensors().end(), [&](const auto& view) {
            return view.name.starts_with(concat("base_model.model.", path, ".")) &&
                   view.name.find("token_adapter.") == view.name.npos &&
                   !view.name.ends_with(".base_layer.weight");
          });
      if (!stored) continue;
      for (const char* field : kTiedFields)
        if (auto* list = list_of(config, field);
            list != nullptr &&
            std::any_of(list->begin(), list->end(), [&](const ConfigValue& value) {
              return names_any(value, {table_->embedding.front()->path()});
            }))
          list->push_back(ConfigValue(path));
    }
  }
  /// A list that would not ask for tied layers again stays as it was given.
  static void keep_tied_names(AdapterSet<T>& set, ConfigValue::Map given) {
    for (const char* field : kTiedFields) {
      const auto* now = list_of(set.mutable_config(), field);
      auto* before = list_of(given, field);
      if (now != nullptr && before != nullptr &&
          std::none_of(now->begin(), now->end(), is_tied_name))
        set.mutable_config()[field] = std::move(*before);
    }
  }
  /// Takes away what a pattern put on output layers that follow the embedding.
  void drop_heads(AdapterSet<T>& set) {
    for (auto* site : table_->linear) {
      if (is_tied_head(*site, *table_)) drop_parts(set, *site);
    }
  }
  /// PEFT's files have trained tokens under the name of every layer over the table, unless another
  /// method trains them beside itself.
  static void copy_rows(AdapterSet<T>& set, const std::string& path, const EmbeddingPart<T>& part) {
    if (set.info().peft_type != TrainableTokensConfig::kPeftType) return;
    for (auto copy : part.tensors()) {
      copy.alias = copy.written = true;
      set.add_tensor(set.key_of(path, copy), copy);
    }
  }
  /// Layers that run on the rows of an adapted table follow it where the adapter says how, some of
  /// them only where the configuration asks.
  void tie_heads(AdapterSet<T>& set, bool asked) {
    if (table_->embedding.empty()) return;
    const auto& source = table_->embedding.front()->path();
    for (auto* site : table_->embedding) {
      if (!is_tied_embedding(*site, *table_) || !site->chain_of(set.name()).empty()) continue;
      for (const auto& named : table_->embedding.front()->adapters()) {
        const auto* part = dynamic_cast<const EmbeddingPart<T>*>(named.adapter.get());
        if (named.name != set.name() || part == nullptr) continue;
        const bool follows =
            part->tied_head() != nullptr || dynamic_cast<const FullEmbedding<T>*>(part) != nullptr;
        if (!follows) continue;
        site->adapters().push_back(named);
        copy_rows(set, site->path(), *part);
        if (asked) set.add_follower(site->path(), source);
      }
    }
    for (auto* site : table_->linear) {
      if (!is_tied_head(*site, *table_)) continue;
      const bool own =
          std::any_of(site->adapters().begin(), site->adapters().end(), [&](const auto& named) {
            return named.name == set.name() &&
                   dynamic_cast<const BasicTrainableTokensHead<T>*>(named.adapter.get()) != nullptr;
          });
      if (own) continue;
      for (const auto& named : table_->embedding.front()->adapters()) {
        if (named.name != set.name()) continue;
        const auto* part = dynamic_cast<const EmbeddingPart<T>*>(named.adapter.get());
        const auto head = part == nullptr ? nullptr
                          : asked         ? part->head_if_asked()
                                          : part->tied_head();
        if (asked && !head)
          throw ValueError(concat("ensure_weight_tying: ", site->path(),
                                  " cannot follow this adapter of ", source));
        if (!head) continue;
        site->adapters().push_back({set.name(), head});
        copy_rows(set, site->path(), *part);
        if (!asked) continue;
        set.add_part(site->path(), head);
        set.add_follower(site->path(), source);
        if (const auto* whole = dynamic_cast<const FullEmbedding<T>*>(part)) {
          AdapterTensor<T> copy;  // PEFT does not load a file without it
          copy.parameter = whole->table();
          copy.alias = copy.written = true;
          set.add_tensor(concat(set.info().path_prefix, site->path(), ".weight"), copy);
        }
      }
    }
  }
  void add_biases(AdapterSet<T>& set) {
    const auto& config = set.given_config();
    const auto it = config.find("bias");
    const std::string* mode =
        it == config.end() ? nullptr : it->second.template get_if<std::string>();
    if (mode == nullptr || *mode == "none") return;
    const auto whole = full_modules(set);
    const auto own = [&](const auto* site) { return !site->chain_of(set.name()).empty(); };
    for (auto* site : table_->linear) {
      const bool adapted = own(site);
      if (!site->base().bias() || !site->plain_bias || (*mode != "all" && !adapted) ||
          inside(site->path(), whole))
        continue;
      BasicParameter<T> bias(site->base().bias().clone());
      site->biases.list.emplace_back(set.name(), bias);
      AdapterTensor<T> tensor;
      tensor.parameter = bias;
      if (*mode == "all" && !site->second_bias.empty()) {
        // In front, so that of two that differ (a head that is not tied) the layer's own is taken.
        auto second = tensor;
        second.alias = second.written = true;
        set.add_tensor("base_model.model." + site->second_bias, second);
      }
      set.add_tensor("base_model.model." + site->path() +
                         (adapted && set.info().in_peft ? ".base_layer.bias" : ".bias"),
                     tensor);
    }
    if (*mode != "all") return;
    for (auto* site : table_->norm) {
      if (!site->norm().bias || inside(site->path(), whole)) continue;
      BasicParameter<T> bias(site->norm().bias.clone());
      site->biases.list.emplace_back(set.name(), bias);
      AdapterTensor<T> tensor;
      tensor.parameter = bias;
      set.add_tensor("base_model.model." + site->path() + ".bias", tensor);
    }
  }

  void apply_active(const std::vector<std::string>& names) {
    for (auto* s : table_->linear) {
      s->activate(names);
      s->biases.activate(names);
    }
    for (auto* s : table_->embedding) s->activate(names);
    for (auto* s : table_->norm) {
      s->activate(names);
      s->biases.activate(names);
    }
    for (auto* s : table_->hidden) s->activate(names);
    for (auto* s : table_->attention) s->activate(names);
    if (table_->prompt != nullptr) table_->prompt->activate(names);
    if (table_->pass != nullptr) table_->pass->activate(names);
    if (table_->stack != nullptr) table_->stack->activate(names);
  }
  template <class Site>
  static void refuse(const Site& site, const std::vector<std::string>& names) {
    for (const auto& named : site.adapters())
      if (std::find(names.begin(), names.end(), named.name) != names.end())
        throw ValueError(concat("merge: adapter '", named.name, "' at ", site.path(),
                                " cannot be folded into a weight"));
  }

  /// The chain of a site, seen as one adapter over the frozen layer.
  struct Chain {
    using Scalar = T;
    const BasicLinearSite<T>* site;
    template <Linear L>
    BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
      const BasicAnyLinear<T> root{BasicDenseLinear<T>(weight_of(base), bias_of(base))};
      return BasicLinearView<T>(root, site->chain())(x);
    }
    std::vector<AdapterTensor<T>> tensors() const { return {}; }
  };
  static BasicDenseLinear<T> merged_layer(const BasicLinearSite<T>& site) {
    const BasicDenseLinear<T> frozen(
        site.base().dense_weight(),
        site.biases.active ? site.biases.active.value().clone() : site.base().bias());
    if (site.chain().empty()) return frozen;
    return site.biases.active ? merge_linear(BasicAnyLinear<T>(frozen), Chain{&site})
                              : merge_linear(site.base(), Chain{&site});
  }
  static BasicTensor<T> merged_table(const BasicEmbeddingSite<T>& site) {
    BasicTape<T> tape({.gradients = false, .training = false});
    std::vector<std::int32_t> ids(static_cast<std::size_t>(site.table().rows()));
    for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int32_t>(i);
    return site(tape, ids).value();
  }

  static std::vector<std::byte> index_bytes(const IndexTensor& index) {
    const std::size_t width = index.type == IndexTensor::Type::u8    ? 1
                              : index.type == IndexTensor::Type::i16 ? 2
                              : index.type == IndexTensor::Type::i32 ? 4
                                                                     : 8;
    std::vector<std::byte> bytes(index.values.size() * width);
    for (std::size_t i = 0; i < index.values.size(); ++i)
      std::memcpy(bytes.data() + i * width, &index.values[i], width);
    return bytes;
  }

  BasicSiteTable<T>* table_;
  const MethodRegistry<T>* registry_;
  Sets sets_;
  std::vector<std::string> active_;
  std::function<std::vector<std::int32_t>(const std::string&, const std::string&)> tokenize_;
  std::vector<std::function<void()>> merged_;
};

using AdapterModel = BasicAdapterModel<float>;

#ifdef GRAFT_METHODS_COMPILED
extern template class BasicAdapterModel<float>;
extern template class BasicAdapterModel<double>;
#endif

}  // namespace graft::inline v0_1
