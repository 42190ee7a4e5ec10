#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "graft/compose/adapter_model.hpp"
#include "graft/io/atomic_file.hpp"
#include "graft/io/json.hpp"
#include "graft/io/safetensors.hpp"
#include "graft/optim/optimizer.hpp"

/// Folders that a training run goes on from: `checkpoint-<step>` with the adapter, the optimiser's
/// state and state.json. A folder appears whole or not at all: it is written under another name and
/// renamed.
namespace graft::train {

struct CheckpointState {
  Index step = 0;
  io::Json extra =
      io::Json::object();  ///< what the program keeps beside it (losses so far, settings)
};

namespace detail {

inline std::optional<Index> checkpoint_step(const std::filesystem::path& path) {
  static constexpr std::string_view kPrefix = "checkpoint-";
  const std::string name = path.filename().string();
  if (!name.starts_with(kPrefix)) return std::nullopt;
  const std::string digits = name.substr(kPrefix.size());
  if (digits.empty() || digits.size() > 12 || digits.find_first_not_of("0123456789") != digits.npos)
    return std::nullopt;
  return static_cast<Index>(std::stoll(digits));
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

/// Writes checkpoint-<step> into `folder` and removes all but the newest `keep`. @throws IoError
inline void save_checkpoint(const std::filesystem::path& folder, const AdapterModel& model,
                            const std::string& adapter, const Optimizer& optimizer,
                            const CheckpointState& state, std::size_t keep = 2) {
  namespace fs = std::filesystem;
  const fs::path target = folder / concat("checkpoint-", state.step);
  const fs::path work = folder / concat(".writing-", state.step);
  fs::remove_all(work);
  fs::create_directories(work);
  model.save(adapter, work / "adapter");
  std::vector<io::TensorToWrite> tensors;
  io::Json steps = io::Json::array();
  for (Index i = 0; i < optimizer.size(); ++i) {
    const auto& s = optimizer.state(i);
    steps.push_back(s.steps);
    for (std::size_t m = 0; m < s.moments.size(); ++m) {
      io::TensorToWrite t;
      t.name = concat(i, ".", m);
      t.dtype = io::DType::f32;
      t.shape.assign(s.moments[m].shape().begin(), s.moments[m].shape().end());
      t.data = std::as_bytes(s.moments[m].span());
      tensors.push_back(std::move(t));
    }
  }
  io::write_safetensors(work / "optimizer.safetensors", tensors);
  const io::Json json{{"step", state.step}, {"optimizer_steps", steps}, {"extra", state.extra}};
  const std::string text = io::json_text(json, 1) + "\n";
  io::write_file_atomically(work / "state.json", std::as_bytes(std::span(text)));
  fs::remove_all(target);
  fs::rename(work, target);
  auto all = list_checkpoints(folder);
  while (all.size() > keep) {
    fs::remove_all(all.front().second);
    all.erase(all.begin());
  }
}

/// Puts a checkpoint back into an adapter and an optimiser that were made with the same settings.
/// @throws IoError, ValueError, ShapeError if the files are not those of such a run.
inline CheckpointState load_checkpoint(const std::filesystem::path& checkpoint, AdapterModel& model,
                                       const std::string& adapter, Optimizer& optimizer) {
  const auto report = AdapterModel::read_tensors(
      model.at(adapter),
      io::SafetensorsFile::open(checkpoint / "adapter" / "adapter_model.safetensors"));
  if (!report.ok()) throw ValueError(concat(checkpoint.string(), ": ", report.text()));
  const auto document = io::read_json(checkpoint / "state.json");
  const io::JsonView json(document, (checkpoint / "state.json").string());
  const auto steps = json.at("optimizer_steps").integers(0);
  if (static_cast<Index>(steps.size()) != optimizer.size())
    throw ValueError(concat(checkpoint.string(), ": states of ", steps.size(),
                            " parameters, expected ", optimizer.size()));
  const auto file = io::SafetensorsFile::open(checkpoint / "optimizer.safetensors");
  for (Index i = 0; i < optimizer.size(); ++i) {
    ParameterState s;
    s.steps = steps[static_cast<std::size_t>(i)];
    for (Index m = 0; m < optimizer.moments(); ++m) {
      const auto* view = file.find(concat(i, ".", m));
      if (view == nullptr) continue;
      s.moments.push_back(
          Tensor::from(io::to_f32(*view), Shape(view->shape.begin(), view->shape.end())));
    }
    optimizer.set_state(i, std::move(s));
  }
  CheckpointState state;
  state.step = static_cast<Index>(json.at("step").integer(0));
  state.extra = json.at("extra").json();
  return state;
}

}  // namespace graft::train
