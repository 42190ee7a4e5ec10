#include "images.hpp"
#include "labelled_task.hpp"

namespace cli {
namespace {

using graft::concat;

/// The class of an image.
class ImageTask final : public LabelledTask {
 public:
  explicit ImageTask(const TaskOptions& options) : LabelledTask(options) {
    auto data = load_images(o_.data.data, o_.model, o_.labelled, {});
    labels_.names = data.label_names;
    take(load_image_classifier(o_.model, std::ssize(labels_.names), o_.seed));
    take_rows(part_of(std::move(data), o_.data.data), [&](const std::string& path) {
      return part_of(load_images(path, o_.model, o_.labelled, labels_.names), path);
    });
  }

 private:
  const char* task_type() const override { return nullptr; }  // PEFT has none for images
  Score score(const Part& part, const graft::Tensor& outputs) const override {
    return class_score(part, outputs);
  }
  Part part_of(graft::LabelledImages images, const std::string& path) {
    Part part;
    for (const auto label : images.labels) part.truth.push_back({{label}, 0});
    say_rows(path, images.rows, " (images)");
    part.rows = images_as_rows(std::move(images), o_.model);
    return part;
  }
};

}  // namespace

std::unique_ptr<Task> image_task(const TaskOptions& options) {
  return std::make_unique<ImageTask>(options);
}

}  // namespace cli
