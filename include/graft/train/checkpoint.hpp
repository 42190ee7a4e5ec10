#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/compose/adapter_model.hpp"
#include "graft/io/atomic_file.hpp"
#include "graft/io/json.hpp"
#include "graft/io/safetensors.hpp"
#include "graft/optim/optimizer.hpp"

/// Folders that a training run goes on from, `checkpoint-<step>`:
///
///     adapters/<name>/       each active adapter, as it is saved for use
///     training.safetensors   moments of the optimiser, state of procedures, tensors that adapters
///     do not save state.json             step, settings that must not change, curves so far
///
/// A folder appears whole or not at all: it is written under another name, flushed and renamed.
namespace graft::inline v0_1 {

namespace detail {

inline constexpr std::string_view kCheckpointPrefix = "checkpoint-";
inline constexpr std::string_view kUnfinishedPrefix = ".checkpoint-";

inline std::optional<Index> checkpoint_step(const std::filesystem::path& path) {
  const std::string name = path.filename().string();
  if (!name.starts_with(kCheckpointPrefix)) return std::nullopt;
  const std::string digits = name.substr(kCheckpointPrefix.size());
  if (digits.empty() || digits.size() > 12 || digits.find_first_not_of("0123456789") != digits.npos)
    return std::nullopt;
  return static_cast<Index>(std::stoll(digits));
}

/// Names, owns and lists arrays that go into one file.
template <std::floating_point T>
class CheckpointTensors {
 public:
  void add(std::string name, const BasicTensor<T>& tensor) {
    io::TensorToWrite item;
    item.name = std::move(name);
    item.dtype = std::is_same_v<T, float> ? io::DType::f32 : io::DType::f64;
    item.shape.assign(tensor.shape().begin(), tensor.shape().end());
    item.data = std::as_bytes(tensor.span());
    list_.push_back(std::move(item));
    kept_.push_back(tensor);
  }
  void add(std::string name, std::vector<double> values) {
    numbers_.push_back(std::make_unique<std::vector<double>>(std::move(values)));
    io::TensorToWrite item;
    item.name = std::move(name);
    item.dtype = io::DType::f64;
    item.shape = {static_cast<Index>(numbers_.back()->size())};
    item.data = std::as_bytes(std::span(*numbers_.back()));
    list_.push_back(std::move(item));
  }
  const std::vector<io::TensorToWrite>& list() const { return list_; }

 private:
  std::vector<io::TensorToWrite> list_;
  std::vector<BasicTensor<T>> kept_;
  std::vector<std::unique_ptr<std::vector<double>>> numbers_;
};

template <std::floating_point T>
BasicTensor<T> checkpoint_tensor(const io::TensorView& view) {
  const Shape shape(view.shape.begin(), view.shape.end());
  if constexpr (std::is_same_v<T, float>)
    return BasicTensor<T>::from(io::to_f32(view), shape);
  else
    return BasicTensor<T>::from(io::to_f64(view), shape);
}

/// Adapter files hold f32: other tensors, and all in double precision, lie beside the optimiser's.
template <std::floating_point T>
bool kept_beside(const AdapterTensor<T>& tensor) {
  return tensor.parameter && (!tensor.saved || !std::is_same_v<T, float>);
}

}  // namespace detail

/// Checkpoints in a folder, by step, oldest first.
inline std::vector<std::pair<Index, std::filesystem::path>> list_checkpoints(
    const std::filesystem::path& folder) {
  std::vector<std::pair<Index, std::filesystem::path>> list;
  if (!std::filesystem::is_directory(folder)) return list;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (const auto step = detail::checkpoint_step(entry.path()); step && entry.is_directory())
      list.emplace_back(*step, entry.path());
  std::sort(list.begin(), list.end());
  return list;
}

/// Writes `checkpoint-<step>` with the active adapters, the optimiser and `state` into `folder`;
/// removes all but the newest `keep`, and what a run that was killed while writing left. Returns
/// its path. @throws IoError; an older checkpoint is kept then.
template <std::floating_point T>
std::filesystem::path save_checkpoint(const std::filesystem::path& folder, Index step,
                                      const BasicAdapterModel<T>& adapters,
                                      const BasicOptimizer<T>& optimizer, io::Json state,
                                      std::size_t keep = 2) {
  namespace fs = std::filesystem;
  const fs::path target = folder / concat(detail::kCheckpointPrefix, step);
  const fs::path work = folder / concat(detail::kUnfinishedPrefix, step, ".new");
  const fs::path old = folder / concat(detail::kUnfinishedPrefix, step, ".old");
  fs::create_directories(folder);
  for (const auto& entry :
       std::vector<fs::directory_entry>(fs::directory_iterator(folder), fs::directory_iterator()))
    if (entry.path().filename().string().starts_with(detail::kUnfinishedPrefix))
      fs::remove_all(entry.path());
  fs::create_directories(work);

  detail::CheckpointTensors<T> tensors;
  io::Json steps = io::Json::array();
  for (Index i = 0; i < optimizer.size(); ++i) {
    const auto& s = optimizer.state(i);
    steps.push_back(s.steps);
    for (std::size_t m = 0; m < s.moments.size(); ++m)
      tensors.add(concat("moment/", i, "/", m), s.moments[m]);
  }
  for (const auto& name : adapters.active()) {
    const auto& set = adapters.at(name);
    adapters.save(name, work / "adapters" / name, true);
    for (const auto& [key, tensor] : set.tensors())
      if (detail::kept_beside(tensor))
        tensors.add(concat("tensor/", name, "/", key), tensor.parameter.value());
    if (set.procedure() != nullptr)
      for (auto& [key, values] : set.procedure()->state())
        tensors.add(concat("procedure/", name, "/", key), values);
  }
  io::write_safetensors(work / "training.safetensors", tensors.list());
  state["step"] = step;
  state["adapters"] = adapters.active();
  state["optimizer_steps"] = steps;
  io::write_file_atomically(work / "state.json", io::json_text(state, 1) + "\n");
  io::flush_folder(work / "adapters");
  io::flush_folder(work);

  if (fs::exists(target)) fs::rename(target, old);
  fs::rename(work, target);
  io::flush_folder(folder);
  fs::remove_all(old);
  auto all = list_checkpoints(folder);
  for (std::size_t i = 0; i + keep < all.size(); ++i) fs::remove_all(all[i].second);
  return target;
}

/// Puts a checkpoint back into adapters and an optimiser that were made with the same settings;
/// returns its state.json.
/// @throws IoError, ValueError, ShapeError if the files are not those of such a run; adapters may
/// be changed in part then.
template <std::floating_point T>
io::Json load_checkpoint(const std::filesystem::path& checkpoint, BasicAdapterModel<T>& adapters,
                         BasicOptimizer<T>& optimizer) {
  auto state = io::read_json(checkpoint / "state.json");
  const io::JsonView json(state, (checkpoint / "state.json").string());
  if (json.at("adapters").strings() != adapters.active())
    json.at("adapters")
        .fail(concat("the run has ", adapters.active().size(), " active adapters, not these"));
  const auto file = io::SafetensorsFile::open(checkpoint / "training.safetensors");
  for (const auto& name : adapters.active()) {
    auto& set = adapters.at(name);
    const auto path = checkpoint / "adapters" / name / "adapter_model.safetensors";
    const auto report = BasicAdapterModel<T>::read_tensors(set, io::SafetensorsFile::open(path));
    if (!report.ok()) throw ValueError(concat(path.string(), ": ", report.text()));
    for (const auto& [key, tensor] : set.tensors())
      if (detail::kept_beside(tensor))
        tensor.parameter.assign(
            detail::checkpoint_tensor<T>(file.at(concat("tensor/", name, "/", key))));
    for (const auto& placed : set.parts()) placed.part->after_load();
    if (set.procedure() == nullptr) continue;
    std::map<std::string, std::vector<double>> numbers;
    const std::string prefix = concat("procedure/", name, "/");
    for (const auto& view : file.tensors())
      if (view.name.starts_with(prefix))
        numbers[view.name.substr(prefix.size())] = io::to_f64(view);
    set.procedure()->set_state(numbers);
  }
  const auto steps = json.at("optimizer_steps").integers(0);
  if (static_cast<Index>(steps.size()) != optimizer.size())
    json.at("optimizer_steps")
        .fail(concat("expected ", optimizer.size(), " parameters, found ", steps.size()));
  for (Index i = 0; i < optimizer.size(); ++i) {
    BasicParameterState<T> s;
    s.steps = steps[static_cast<std::size_t>(i)];
    for (Index m = 0; s.steps > 0 && m < optimizer.moments(); ++m)
      s.moments.push_back(detail::checkpoint_tensor<T>(file.at(concat("moment/", i, "/", m))));
    optimizer.set_state(i, std::move(s));
  }
  return state;
}

}  // namespace graft::inline v0_1
