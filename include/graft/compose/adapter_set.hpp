#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/full_copy.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/target_match.hpp"
#include "graft/autograd/training_passes.hpp"

namespace graft::inline v0_1 {

/// A tensor of an adapter with its whole key in files.
template <std::floating_point T>
struct KeyedTensor {
  std::string key;
  AdapterTensor<T> tensor;
};

/// One named adapter on one model: the parts at its sites, and how to make, name, save and step
/// them. Knows no method by name.
template <std::floating_point T>
class AdapterSet {
 public:
  AdapterSet(std::string name, MethodInfo info, ConfigValue::Map config)
      : name_(std::move(name)), info_(info), config_(std::move(config)) {}

  const std::string& name() const { return name_; }
  const MethodInfo& info() const { return info_; }
  /// The configuration as adapter_config.json holds it.
  ConfigValue::Map config() const {
    auto map = config_;
    if (procedure_) procedure_->update_config(map);
    return map;
  }
  const ConfigValue::Map& given_config() const { return config_; }

  /// Every tensor, each shared one once.
  std::vector<KeyedTensor<T>> tensors() const {
    return collect([](const AdapterPart<T>& part) { return part.tensors(); });
  }
  /// What the file of the finished adapter holds; see AdapterPart::file_tensors.
  std::vector<KeyedTensor<T>> file_tensors() const {
    return collect([](const AdapterPart<T>& part) { return part.file_tensors(); });
  }
  /// The trained parameters, each once.
  std::vector<BasicParameter<T>> parameters() const {
    std::vector<BasicParameter<T>> list;
    for (auto& t : tensors())
      if (t.tensor.parameter && t.tensor.parameter.trainable() &&
          std::find(list.begin(), list.end(), t.tensor.parameter) == list.end())
        list.push_back(t.tensor.parameter);
    return list;
  }
  Index trainable_elements() const {
    Index count = 0;
    for (const auto& p : parameters()) count += p.size();
    return count;
  }

  /// Sum of the auxiliary losses of the parts; empty if none has one.
  BasicVar<T> auxiliary_loss(BasicTape<T>& tape) const {
    BasicVar<T> total;
    for (const auto& placed : parts_) {
      auto term = placed.part->auxiliary_loss(tape);
      if (term) total = total ? add(total, term) : term;
    }
    if (loss_) {
      auto term = loss_(tape);
      if (term) total = total ? add(total, term) : term;
    }
    return total;
  }
  /// What a training step minimises beside auxiliary losses, for methods that run the model more
  /// than once; null for others: the loss of one pass.
  using Objective = std::function<BasicVar<T>(BasicTape<T>&, const TrainingPasses<T>&)>;
  const Objective& objective() const { return objective_; }
  Procedure<T>* procedure() const { return procedure_.get(); }
  const std::vector<PlacedPart<T>>& parts() const { return parts_; }
  /// Layers that run on the tensors of another layer's part, by paths: who follows -> whom.
  const std::map<std::string, std::string>& followers() const { return followers_; }

  // For whoever builds the set.
  void add_part(std::string path, std::shared_ptr<AdapterPart<T>> part) {
    parts_.push_back({std::move(path), std::move(part)});
  }
  void remove_parts(const std::string& path) {
    std::erase_if(parts_, [&](const auto& placed) { return placed.path == path; });
  }
  void add_follower(std::string path, std::string source) {
    followers_[std::move(path)] = std::move(source);
  }
  void add_tensor(std::string key, AdapterTensor<T> tensor) {
    extra_tensors_.push_back({std::move(key), std::move(tensor)});
  }
  void set_procedure(std::unique_ptr<Procedure<T>> procedure) { procedure_ = std::move(procedure); }
  void set_loss(std::function<BasicVar<T>(BasicTape<T>&)> loss) { loss_ = std::move(loss); }
  void set_objective(Objective objective) { objective_ = std::move(objective); }
  ConfigValue::Map& mutable_config() { return config_; }

  std::string key_of(const std::string& path, const AdapterTensor<T>& t) const {
    using Scope = typename AdapterTensor<T>::Scope;
    if (t.scope == Scope::root) return t.name;
    if (t.scope == Scope::model) return "base_model." + t.name;
    return std::string(info_.path_prefix) + (path.empty() ? t.name : path + "." + t.name);
  }

 private:
  template <class List>
  std::vector<KeyedTensor<T>> collect(List&& list) const {
    std::vector<KeyedTensor<T>> all;
    std::set<std::string> seen;
    for (const auto& placed : parts_)
      for (auto& t : list(*placed.part)) {
        std::string key = key_of(placed.path, t);
        if (seen.insert(key).second) all.push_back({std::move(key), std::move(t)});
      }
    for (const auto& extra : extra_tensors_) all.push_back(extra);
    return all;
  }

  std::string name_;
  MethodInfo info_;
  ConfigValue::Map config_;
  std::vector<PlacedPart<T>> parts_;
  std::vector<KeyedTensor<T>> extra_tensors_;
  std::unique_ptr<Procedure<T>> procedure_;
  std::function<BasicVar<T>(BasicTape<T>&)> loss_;
  Objective objective_;
  std::map<std::string, std::string> followers_;
};

}  // namespace graft::inline v0_1
