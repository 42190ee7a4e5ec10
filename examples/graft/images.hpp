#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "graft/train/image_dataset.hpp"
#include "texts.hpp"

/// Images for the vision models.
namespace cli {

/// Images of a table, scaled as the model's preprocessor_config.json says.
/// @param names  classes that are known from training; empty: those of the table
/// @throws IoError with file and line
graft::LabelledImages load_images(const std::string& path, const std::filesystem::path& model,
                                  const LabelledOptions& options,
                                  const std::vector<std::string>& names);
graft::Dataset images_as_rows(graft::LabelledImages images, const std::filesystem::path& model);

}  // namespace cli
