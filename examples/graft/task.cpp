#include "task.hpp"

#include "labels.hpp"

namespace cli {

const std::vector<std::pair<std::string, std::unique_ptr<Task> (*)(const TaskOptions&)>>& tasks() {
  static const std::vector<std::pair<std::string, std::unique_ptr<Task> (*)(const TaskOptions&)>>
      kTasks{{"language", language_task},
             {kMaskedLanguage, masked_task},
             {"classification", classification_task},
             {"regression", regression_task},
             {"token-classification", tagging_task},
             {"image-classification", image_task}};
  return kTasks;
}

std::vector<std::string> task_names() {
  std::vector<std::string> names;
  for (const auto& [name, make] : tasks()) names.push_back(name);
  return names;
}

}  // namespace cli
