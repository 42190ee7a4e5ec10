#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>
#include <type_traits>

#include "graft/io/atomic_file.hpp"
#include "graft/io/json.hpp"
#include "graft/io/mapped_file.hpp"
#include "graft/io/safetensors.hpp"
#include "graft/quant/half.hpp"

namespace graft::inline v0_1::io {

namespace detail {

template <class Stored>
Stored load(const std::byte* from) {
  Stored value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

/// Calls `use(i, value)` for every element, with the element as a number of its own kind.
template <class Use>
void for_each_element(const TensorView& tensor, const Use& use) {
  const Index count = tensor.elements();
  const std::byte* const data = tensor.data.data();
  const auto each = [&]<class Stored>(Stored, const auto& convert) {
    for (Index i = 0; i < count; ++i)
      use(i, convert(load<Stored>(data + i * static_cast<Index>(sizeof(Stored)))));
  };
  const auto same = [](auto value) { return value; };
  switch (tensor.dtype) {
    case DType::f64:
      return each(double{}, same);
    case DType::f32:
      return each(float{}, same);
    case DType::f16:
      return each(std::uint16_t{}, [](std::uint16_t bits) { return quant::f16_to_f32(bits); });
    case DType::bf16:
      return each(std::uint16_t{}, [](std::uint16_t bits) { return quant::bf16_to_f32(bits); });
    case DType::f8_e4m3:
      return each(std::uint8_t{}, [](std::uint8_t bits) { return quant::f8_e4m3_to_f32(bits); });
    case DType::f8_e5m2:
      return each(std::uint8_t{}, [](std::uint8_t bits) { return quant::f8_e5m2_to_f32(bits); });
    case DType::i64:
      return each(std::int64_t{}, same);
    case DType::u64:
      return each(std::uint64_t{}, same);
    case DType::i32:
      return each(std::int32_t{}, same);
    case DType::u32:
      return each(std::uint32_t{}, same);
    case DType::i16:
      return each(std::int16_t{}, same);
    case DType::u16:
      return each(std::uint16_t{}, same);
    case DType::i8:
      return each(std::int8_t{}, same);
    case DType::u8:
      return each(std::uint8_t{}, same);
    case DType::boolean:
      return each(std::uint8_t{}, [](std::uint8_t value) { return std::uint8_t{value != 0}; });
  }
}

}  // namespace detail

namespace detail {

GRAFT_IO bool stored_bytes(const std::vector<Index>& shape, Index element_bytes, Index& bytes) {
  Index product = element_bytes;
  bool is_empty = false;
  for (const Index length : shape) {
    is_empty = is_empty || length == 0;
    if (length < 0 || __builtin_mul_overflow(product, std::max<Index>(length, 1), &product))
      return false;
  }
  bytes = is_empty ? 0 : product;
  return true;
}

GRAFT_IO const TensorView* find_tensor(const std::vector<TensorView>& tensors,
                                       std::string_view name) {
  const auto found = std::lower_bound(
      tensors.begin(), tensors.end(), name,
      [](const TensorView& tensor, std::string_view key) { return tensor.name < key; });
  return found != tensors.end() && found->name == name ? &*found : nullptr;
}

GRAFT_IO bool parse_dtype(std::string_view name, DType& dtype) {
  for (int i = 0; i <= static_cast<int>(DType::u64); ++i) {
    if (dtype_info(static_cast<DType>(i)).name != name) continue;
    dtype = static_cast<DType>(i);
    return true;
  }
  return false;
}

}  // namespace detail

GRAFT_IO SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  auto mapping = std::make_shared<MappedFile>(path);
  SafetensorsFile file;
  file.read(mapping->bytes(), path.string());
  file.storage_ = std::move(mapping);
  return file;
}

GRAFT_IO SafetensorsFile SafetensorsFile::parse(std::span<const std::byte> bytes,
                                                std::string name) {
  SafetensorsFile file;
  file.read(bytes, std::move(name));
  return file;
}

GRAFT_IO SafetensorsFile SafetensorsFile::parse(std::vector<std::byte> bytes, std::string name) {
  auto owned = std::make_shared<std::vector<std::byte>>(std::move(bytes));
  SafetensorsFile file;
  file.read(*owned, std::move(name));
  file.storage_ = std::move(owned);
  return file;
}

GRAFT_IO const TensorView* SafetensorsFile::find(std::string_view name) const {
  return detail::find_tensor(tensors_, name);
}

GRAFT_IO const TensorView& SafetensorsFile::at(std::string_view name) const {
  const TensorView* const tensor = find(name);
  if (tensor == nullptr) throw IoError(concat(name_, ": tensor '", name, "' is missing"));
  return *tensor;
}

GRAFT_IO void SafetensorsFile::read(std::span<const std::byte> bytes, std::string name) {
  name_ = std::move(name);
  std::uint64_t header_size = 0;
  if (bytes.size() < sizeof header_size)
    fail(concat("holds ", bytes.size(), " bytes, expected 8 at least"));
  std::memcpy(&header_size, bytes.data(), sizeof header_size);
  bytes = bytes.subspan(sizeof header_size);
  if (header_size > kLargestHeader || header_size > bytes.size()) {
    fail(concat("header of ", header_size, " bytes does not fit the file (", bytes.size(),
                " bytes follow)"));
  }
  const std::string_view header(reinterpret_cast<const char*>(bytes.data()), header_size);
  if (!header.starts_with('{')) fail("the header is not a JSON object");
  const Json document = parse_json(header, name_, {.depth = 8});
  read_tensors(JsonView(document, name_), bytes.subspan(header_size));
}

GRAFT_IO void SafetensorsFile::read_tensors(const JsonView& header,
                                            std::span<const std::byte> data) {
  struct Range {
    Index begin;
    Index end;
    std::size_t tensor;
  };
  std::vector<Range> ranges;
  for (const auto& [key, entry] : header.members()) {
    if (key == "__metadata__") {
      for (const auto& [name, text] : entry.members()) metadata_.emplace(name, text.string());
      continue;
    }
    TensorView tensor;
    tensor.name = key;
    if (!detail::parse_dtype(entry.at("dtype").string(), tensor.dtype)) {
      fail(key, concat("unknown dtype '", entry.at("dtype").string(), "'"));
    }
    tensor.shape = read_shape(entry.at("shape"), key);
    Index size = 0;
    if (!detail::stored_bytes(tensor.shape, dtype_info(tensor.dtype).bytes, size)) {
      fail(key, "the shape is too large");
    }
    const auto offsets = entry.at("data_offsets").integers(0);
    if (offsets.size() != 2) fail(key, concat("expected 2 data_offsets, found ", offsets.size()));
    const Index begin = offsets[0], end = offsets[1];
    if (begin > end || end > std::ssize(data)) {
      fail(key, concat("data_offsets [", begin, ", ", end, "] leave the ", data.size(),
                       " bytes of data"));
    }
    if (end - begin != size) {
      fail(key, concat("expected ", size, " bytes by dtype and shape, found ", end - begin));
    }
    tensor.data = data.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(size));
    ranges.push_back({begin, end, tensors_.size()});
    tensors_.push_back(std::move(tensor));  // members() sorts by key: tensors_ is sorted by name
  }
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  Index expected = 0;
  for (const Range& range : ranges) {
    if (range.begin != expected) {
      fail(tensors_[range.tensor].name,
           concat("data begins at ", range.begin, ", expected ", expected,
                  range.begin < expected ? ": it overlaps another tensor"
                                         : ": nothing describes the bytes before"));
    }
    expected = range.end;
  }
  if (expected != std::ssize(data)) {
    fail(concat("the tensors end at byte ", expected, " of ", data.size(), " bytes of data"));
  }
}

GRAFT_IO std::vector<Index> SafetensorsFile::read_shape(const JsonView& list,
                                                        const std::string& tensor) const {
  std::vector<Index> shape;
  if (list.json().size() > kLargestRank) fail(tensor, concat("more than ", kLargestRank, " axes"));
  for (const std::int64_t length : list.integers(0)) shape.push_back(static_cast<Index>(length));
  return shape;
}

GRAFT_IO void SafetensorsFile::fail(std::string_view complaint) const {
  throw IoError(concat(name_, ": ", complaint));
}

GRAFT_IO void SafetensorsFile::fail(std::string_view tensor, std::string_view complaint) const {
  throw IoError(concat(name_, ": tensor '", tensor, "': ", complaint));
}

GRAFT_IO SafetensorsModel SafetensorsModel::open(const std::filesystem::path& folder_or_file) {
  namespace fs = std::filesystem;
  SafetensorsModel model;
  model.name_ = folder_or_file.string();
  fs::path file = folder_or_file;
  if (fs::is_directory(folder_or_file)) {
    file = folder_or_file / "model.safetensors";
    if (!fs::exists(file)) file = folder_or_file / "model.safetensors.index.json";
    if (!fs::exists(file)) {
      throw IoError(concat(model.name_,
                           ": holds neither model.safetensors nor model.safetensors.index.json"));
    }
  }
  if (file.extension() == ".json") {
    model.open_shards(file);
  } else {
    model.files_.push_back(SafetensorsFile::open(file));
    model.tensors_ = model.files_.front().tensors();
    model.metadata_ = model.files_.front().metadata();
  }
  return model;
}

GRAFT_IO const TensorView* SafetensorsModel::find(std::string_view name) const {
  return detail::find_tensor(tensors_, name);
}

GRAFT_IO const TensorView& SafetensorsModel::at(std::string_view name) const {
  const TensorView* const tensor = find(name);
  if (tensor == nullptr) throw IoError(concat(name_, ": tensor '", name, "' is missing"));
  return *tensor;
}

GRAFT_IO std::shared_ptr<const void> SafetensorsModel::storage() const {
  auto all = std::make_shared<std::vector<std::shared_ptr<const void>>>();
  for (const SafetensorsFile& file : files_) all->push_back(file.storage());
  return all;
}

GRAFT_IO void SafetensorsModel::open_shards(const std::filesystem::path& index_path) {
  const Json document = read_json(index_path);
  const JsonView index(document, index_path.string());
  std::map<std::string, std::size_t> opened;
  for (const auto& [tensor, shard] : index.at("weight_map").members()) {
    const std::string& file = shard.string();
    if (file.empty() || file != std::filesystem::path(file).filename() || file == "." ||
        file == "..") {
      shard.fail(concat("'", file, "' is not a file name"));
    }
    const auto [entry, is_new] = opened.emplace(file, files_.size());
    if (is_new) {
      files_.push_back(SafetensorsFile::open(index_path.parent_path() / file));
      metadata_.insert(files_.back().metadata().begin(), files_.back().metadata().end());
    }
    tensors_.push_back(files_[entry->second].at(tensor));
  }
}

GRAFT_IO void write_safetensors(const std::filesystem::path& path,
                                const std::vector<TensorToWrite>& tensors,
                                const std::map<std::string, std::string>& metadata) {
  const auto fail = [&](const TensorToWrite& tensor, std::string_view complaint) {
    throw ValueError(
        concat("write_safetensors '", path.string(), "': tensor '", tensor.name, "': ", complaint));
  };
  std::vector<const TensorToWrite*> order;
  std::set<std::string_view> names;
  for (const TensorToWrite& tensor : tensors) {
    if (!names.insert(tensor.name).second) fail(tensor, "the name appears twice");
    if (tensor.name == "__metadata__") fail(tensor, "the name is reserved");
    Index size = 0;
    if (!detail::stored_bytes(tensor.shape, dtype_info(tensor.dtype).bytes, size)) {
      fail(tensor, "the shape is negative or too large");
    }
    if (size != std::ssize(tensor.data)) {
      fail(tensor,
           concat("expected ", size, " bytes by dtype and shape, found ", tensor.data.size()));
    }
    order.push_back(&tensor);
  }
  std::sort(order.begin(), order.end(), [](const TensorToWrite* a, const TensorToWrite* b) {
    return a->dtype != b->dtype ? a->dtype > b->dtype : a->name < b->name;
  });
  std::string header = "{";
  if (!metadata.empty()) header.append("\"__metadata__\":").append(json_text(metadata, -1));
  Index offset = 0;
  for (const TensorToWrite* tensor : order) {
    if (header.size() > 1) header.push_back(',');
    header.append(json_text(tensor->name, -1))
        .append(":{\"dtype\":\"")
        .append(dtype_info(tensor->dtype).name);
    header.append("\",\"shape\":")
        .append(json_text(tensor->shape, -1))
        .append(",\"data_offsets\":[");
    header.append(concat(offset, ","));
    offset += std::ssize(tensor->data);
    header.append(concat(offset, "]}"));
  }
  header.push_back('}');
  header.append((8 - header.size() % 8) % 8, ' ');
  AtomicFile file(path);
  const std::uint64_t header_size = header.size();
  file.write(std::as_bytes(std::span(&header_size, 1)));
  file.write(header);
  for (const TensorToWrite* tensor : order) file.write(tensor->data);
  file.commit();
}

GRAFT_IO void to_f32(const TensorView& tensor, std::span<float> out) {
  if (tensor.elements() != std::ssize(out)) {
    throw ShapeError(concat("to_f32: tensor '", tensor.name, "' has ", tensor.elements(),
                            " elements, expected ", out.size()));
  }
  if (tensor.dtype == DType::f32) {
    if (!out.empty()) std::memcpy(out.data(), tensor.data.data(), out.size_bytes());
    return;
  }
  detail::for_each_element(tensor, [&](Index i, auto value) {
    out[static_cast<std::size_t>(i)] = static_cast<float>(value);
  });
}

GRAFT_IO std::vector<float> to_f32(const TensorView& tensor) {
  std::vector<float> values(static_cast<std::size_t>(tensor.elements()));
  to_f32(tensor, values);
  return values;
}

GRAFT_IO std::vector<double> to_f64(const TensorView& tensor) {
  std::vector<double> values(static_cast<std::size_t>(tensor.elements()));
  detail::for_each_element(tensor, [&](Index i, auto value) {
    values[static_cast<std::size_t>(i)] = static_cast<double>(value);
  });
  return values;
}

GRAFT_IO bool same_values(const TensorView& a, const TensorView& b) {
  if (a.shape != b.shape) return false;
  if (a.dtype == b.dtype) return std::ranges::equal(a.data, b.data);
  constexpr Index kPart = 1 << 16;  // elements that are converted at once
  const Index count = a.elements();
  for (Index first = 0; first < count; first += kPart) {
    const Index size = std::min(kPart, count - first);
    const auto part = [&](const TensorView& t) {
      const auto width = t.data.size() / static_cast<std::size_t>(count);
      return to_f64({t.name,
                     t.dtype,
                     {size},
                     t.data.subspan(static_cast<std::size_t>(first) * width,
                                    static_cast<std::size_t>(size) * width)});
    };
    if (part(a) != part(b)) return false;
  }
  return true;
}

GRAFT_IO std::vector<std::int64_t> to_i64(const TensorView& tensor) {
  std::vector<std::int64_t> values(static_cast<std::size_t>(tensor.elements()));
  detail::for_each_element(tensor, [&](Index i, auto value) {
    using Value = decltype(value);
    bool fits = true;
    if constexpr (std::is_floating_point_v<Value>) {
      fits = value >= Value{-9223372036854775808.0} && value < Value{9223372036854775808.0} &&
             value == std::floor(value);
    } else if constexpr (std::is_same_v<Value, std::uint64_t>) {
      fits = value <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
    }
    if (!fits)
      throw ValueError(
          concat("to_i64: tensor '", tensor.name, "': element ", i, " is not a 64-bit integer"));
    values[static_cast<std::size_t>(i)] = static_cast<std::int64_t>(value);
  });
  return values;
}

}  // namespace graft::inline v0_1::io
