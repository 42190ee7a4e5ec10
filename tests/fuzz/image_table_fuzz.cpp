// Any bytes as a table of images of 2 x 2 pixels: refused, or finite pixels and labels that have
// names.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "graft/train/image_dataset.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  graft::PixelTableOptions options;
  options.channels = 1;
  options.size = 2;
  options.scale = {1.0 / 16, {0.5}, {0.25}};
  for (const char* label : {"label", ""}) {
    options.label_column = label;
    try {
      const auto table = graft::text::parse_table(text, "table", graft::text::TableFormat::csv);
      const auto images = graft::labelled_images(table, options);
      if (images.pixels.size() != 4 * table.rows.size()) __builtin_trap();
      if (*label != 0 && images.labels.size() != table.rows.size()) __builtin_trap();
      for (const float pixel : images.pixels)
        if (!std::isfinite(pixel)) __builtin_trap();
      for (const auto number : images.labels)
        if (number < 0 || number >= std::ssize(images.label_names)) __builtin_trap();
    } catch (const graft::Error&) {
    }
  }
  return 0;
}
