#include "images.hpp"

#include "graft/io/json.hpp"

namespace cli {
namespace {

using graft::concat;

/// Channels and side of the images that a model takes.
std::pair<graft::Index, graft::Index> image_shape(const std::filesystem::path& model) {
  const auto path = model / "config.json";
  const auto document = graft::io::read_json(path);
  const graft::io::JsonView json(document, path.string());
  if (const std::string type = json.string_or("model_type", ""); type != "vit")
    throw graft::ValueError(concat(model.string(), ": architecture '", type,
                                   "' is not supported for this task; vit is"));
  return {static_cast<graft::Index>(json.integer_or("num_channels", 3, 1, 1 << 10)),
          static_cast<graft::Index>(json.at("image_size").integer(1, 1 << 14))};
}

}  // namespace

graft::LabelledImages load_images(const std::string& path, const std::filesystem::path& model,
                                  const LabelledOptions& options,
                                  const std::vector<std::string>& names) {
  if (!std::filesystem::exists(path)) throw graft::IoError(path + ": no such data file");
  const auto [channels, size] = image_shape(model);
  return graft::load_labelled_images(path, {.channels = channels,
                                            .size = size,
                                            .scale = graft::pixel_scale_of(model),
                                            .label_column = options.label_column,
                                            .header = !options.no_header,
                                            .label_names = names});
}

graft::Dataset images_as_rows(graft::LabelledImages images, const std::filesystem::path& model) {
  const auto [channels, size] = image_shape(model);
  return graft::image_dataset(std::move(images), channels, size);
}

}  // namespace cli
