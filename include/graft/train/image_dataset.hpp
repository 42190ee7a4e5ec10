#pragma once

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "graft/io/json.hpp"
#include "graft/text/dataset.hpp"
#include "graft/text/table.hpp"
#include "graft/train/dataset.hpp"

namespace graft::inline v0_1 {

/// How numbers of a file become pixels: (value · rescale − mean) / deviation, by channel.
struct PixelScale {
  double rescale = 1.0 / 255;
  std::vector<double> mean{0.5}, deviation{0.5};  ///< one, or one a channel
};

/// The scale in preprocessor_config.json of a model's folder (rescale_factor, image_mean,
/// image_std); the default one without that file. Errors: IoError for values that are no numbers.
inline PixelScale pixel_scale_of(const std::filesystem::path& folder) {
  PixelScale scale;
  const auto path = folder / "preprocessor_config.json";
  if (!std::filesystem::exists(path)) return scale;
  const auto document = io::read_json(path);
  const io::JsonView json(document, path.string());
  const auto numbers = [&](const char* key, std::vector<double>& list) {
    const auto view = json.find(key);
    if (!view) return;
    list.clear();
    for (const auto& element : view->elements()) list.push_back(element.number());
    if (list.empty()) view->fail("expected a number a channel");
  };
  scale.rescale = json.number_or("rescale_factor", scale.rescale);
  numbers("image_mean", scale.mean);
  numbers("image_std", scale.deviation);
  return scale;
}

struct PixelTableOptions {
  Index channels = 1, size = 0;  ///< images are [channels, size, size]
  PixelScale scale;
  std::string label_column = "label";  ///< empty: there are no labels
  bool header = true;
  std::vector<std::string> label_names;  ///< when they are known from training
};

struct LabelledImages {
  std::vector<float> pixels;  ///< [rows, channels, size, size]
  std::vector<std::int64_t> labels;
  std::vector<std::string> label_names;  ///< by class number
  Index rows = 0;
};

/// Images of a table with a row an image: a column of the class, and one column a pixel in the
/// order channel, row, column.
/// Errors: IoError with source and line: another number of pixels, a pixel that is no number, a
/// label outside of `label_names`, all rows of one class; ValueError for a scale that fits no
/// channels.
inline LabelledImages labelled_images(const text::Table& table, const PixelTableOptions& options) {
  const auto fits = [&](const std::vector<double>& list) {
    return list.size() == 1 || std::ssize(list) == options.channels;
  };
  if (!fits(options.scale.mean) || !fits(options.scale.deviation))
    throw ValueError(concat("pixel scale: ", options.scale.mean.size(), " means and ",
                            options.scale.deviation.size(), " deviations for ", options.channels,
                            " channels"));
  const bool labelled = !options.label_column.empty();
  const std::size_t label = labelled ? table.column(options.label_column) : table.columns.size();
  const Index area = options.size * options.size, expected = options.channels * area,
              found = std::ssize(table.columns) - (labelled ? 1 : 0);
  if (found != expected)
    throw IoError(concat(table.source, ": ", found, " pixel columns; the model takes ",
                         options.channels, " x ", options.size, " x ", options.size, " = ",
                         expected));
  LabelledImages images;
  images.rows = std::ssize(table.rows);
  images.label_names = options.label_names;
  if (labelled && images.label_names.empty()) {
    std::map<std::string, Index> counts;
    for (const auto& row : table.rows) ++counts[row.fields[label]];
    images.label_names = text::detail::ordered_labels(counts);
    if (images.label_names.size() < 2)
      throw IoError(concat(table.source, ": all ", table.rows.size(), " rows have the label '",
                           images.label_names.front(), "'; at least two classes are needed"));
  }
  for (const auto& row : table.rows) {
    Index place = 0;
    for (std::size_t c = 0; c < row.fields.size(); ++c) {
      const std::string& field = row.fields[c];
      if (c == label) {
        const auto name = std::find(images.label_names.begin(), images.label_names.end(), field);
        if (name == images.label_names.end())
          table.fail(row, concat("the label '", field, "' is none of the ",
                                 images.label_names.size(), " known ones"));
        images.labels.push_back(name - images.label_names.begin());
        continue;
      }
      double value = 0;
      const auto end = field.data() + field.size();
      const auto result = std::from_chars(field.data(), end, value);
      const auto channel = static_cast<std::size_t>(place++ / area);
      const auto of = [&](const std::vector<double>& list) {
        return list.size() == 1 ? list[0] : list[channel];
      };
      const auto pixel = static_cast<float>(
          (value * options.scale.rescale - of(options.scale.mean)) / of(options.scale.deviation));
      if (result.ec != std::errc() || result.ptr != end || !std::isfinite(pixel))
        table.fail(row, concat("the pixel '", field, "' is not a finite number"));
      images.pixels.push_back(pixel);
    }
  }
  return images;
}

/// The same for a CSV or TSV file.
inline LabelledImages load_labelled_images(const std::filesystem::path& path,
                                           const PixelTableOptions& options) {
  return labelled_images(text::read_table(path, {}, options.header), options);
}

/// Images as rows of a dataset.
inline Dataset image_dataset(LabelledImages images, Index channels, Index size) {
  detail::Fingerprint fingerprint;
  for (const float p : images.pixels) fingerprint.add(p);
  for (const auto l : images.labels) fingerprint.add(l);
  Dataset data;
  data.rows = images.rows;
  data.fingerprint = fingerprint.value();
  data.batch = [all = std::make_shared<const LabelledImages>(std::move(images)), channels,
                size](std::span<const Index> picked) {
    const Index count = std::ssize(picked), elements = channels * size * size;
    models::Batch batch;
    batch.batch = count;
    batch.pixels = Tensor::empty({count, channels, size, size});
    for (Index i = 0; i < count; ++i) {
      const Index row = picked[static_cast<std::size_t>(i)];
      std::copy_n(all->pixels.begin() + row * elements, elements,
                  batch.pixels.begin() + i * elements);
      if (!all->labels.empty()) batch.labels.push_back(all->labels[static_cast<std::size_t>(row)]);
    }
    return batch;
  };
  return data;
}

}  // namespace graft::inline v0_1
