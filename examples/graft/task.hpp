#pragma once

#include <functional>
#include <memory>
#include <string>

#include "adapter_choice.hpp"
#include "graft/text/tokenizer.hpp"
#include "graft/train/dataset.hpp"
#include "graft/train/metrics.hpp"
#include "report.hpp"
#include "texts.hpp"

namespace cli {

/// Settings of finetune that depend on what the model is to learn.
struct TaskOptions {
  std::string name = "language", model, sample_prompt;
  DataOptions data;
  LabelledOptions labelled;
  graft::Index sample_tokens = 48, batch_size = 4;
  double held_out = 0.05, mask_rate = 0.15;
  std::uint64_t seed = 0;
  bool activation_checkpointing = false, check_merge = false;
};

using Stop = std::function<bool()>;

/// What a model learns in a run of finetune: the model with its head, the data, and what is said
/// about the result.
class Task {
 public:
  virtual ~Task() = default;

  virtual graft::models::Model& model() = 0;
  /// Lines about model and data.
  virtual std::vector<std::string> lines() const = 0;
  virtual const graft::Dataset& rows() const = 0;
  virtual const graft::Dataset& held_out() const = 0;
  /// Fields of the adapter's configuration that follow from the task.
  virtual void complete(graft::ConfigValue::Map& config) const = 0;

  /// "held-out perplexity 12.3, …"
  virtual std::string quality(const graft::Evaluation& e) const = 0;
  /// A look at the model before it learns; a line about it, or nothing.
  virtual std::string look_before(const Stop& stop) = 0;
  /// The last look, with the adapter that was trained; what takes long may end early.
  virtual void look_after(graft::AdapterModel& adapters, const Stop& stop) = 0;
  /// What a checkpoint keeps for the task.
  virtual void keep(graft::io::Json& note) const = 0;
  virtual void restore(const graft::io::JsonView& note) = 0;

  /// Files beside the adapter.
  virtual void save(const std::filesystem::path& folder) const = 0;
  virtual void add_results(graft::io::Json& result, const graft::TrainHistory& history) const = 0;
  virtual std::string result_text(const graft::TrainHistory& history) const = 0;
  virtual void add_results(Report& report, const graft::TrainHistory& history) const = 0;
};

std::unique_ptr<Task> language_task(const TaskOptions& options);
/// Tokens that are hidden from an encoder.
std::unique_ptr<Task> masked_task(const TaskOptions& options);
/// The class of a text.
std::unique_ptr<Task> classification_task(const TaskOptions& options);
/// A number that belongs to a text.
std::unique_ptr<Task> regression_task(const TaskOptions& options);
/// A tag for every word.
std::unique_ptr<Task> tagging_task(const TaskOptions& options);
/// The class of an image.
std::unique_ptr<Task> image_task(const TaskOptions& options);

/// Tasks by their names on the command line.
const std::vector<std::pair<std::string, std::unique_ptr<Task> (*)(const TaskOptions&)>>& tasks();
std::vector<std::string> task_names();

}  // namespace cli
