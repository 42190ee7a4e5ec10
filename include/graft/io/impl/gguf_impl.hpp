#pragma once

#include <algorithm>
#include <cstring>
#include <limits>
#include <set>
#include <type_traits>
#include <unordered_set>

#include "graft/io/atomic_file.hpp"
#include "graft/io/gguf.hpp"
#include "graft/io/utf8.hpp"

namespace graft::inline v0_1::io {

namespace detail {

/// The format's number of a value type.
template <class T>
inline constexpr std::uint32_t kGgufType = 0xFFFF'FFFFU;
template <>
inline constexpr std::uint32_t kGgufType<std::uint8_t> = 0;
template <>
inline constexpr std::uint32_t kGgufType<std::int8_t> = 1;
template <>
inline constexpr std::uint32_t kGgufType<std::uint16_t> = 2;
template <>
inline constexpr std::uint32_t kGgufType<std::int16_t> = 3;
template <>
inline constexpr std::uint32_t kGgufType<std::uint32_t> = 4;
template <>
inline constexpr std::uint32_t kGgufType<std::int32_t> = 5;
template <>
inline constexpr std::uint32_t kGgufType<float> = 6;
template <>
inline constexpr std::uint32_t kGgufType<bool> = 7;
template <>
inline constexpr std::uint32_t kGgufType<std::string> = 8;
inline constexpr std::uint32_t kGgufArray = 9;
template <>
inline constexpr std::uint32_t kGgufType<std::uint64_t> = 10;
template <>
inline constexpr std::uint32_t kGgufType<std::int64_t> = 11;
template <>
inline constexpr std::uint32_t kGgufType<double> = 12;

/// Calls `visit` with a value of the type that a number stands for; false when there is none.
template <class Visit>
bool with_gguf_type(std::uint32_t type, const Visit& visit) {
  switch (type) {
    case 0:
      visit(std::uint8_t{});
      return true;
    case 1:
      visit(std::int8_t{});
      return true;
    case 2:
      visit(std::uint16_t{});
      return true;
    case 3:
      visit(std::int16_t{});
      return true;
    case 4:
      visit(std::uint32_t{});
      return true;
    case 5:
      visit(std::int32_t{});
      return true;
    case 6:
      visit(float{});
      return true;
    case 7:
      visit(bool{});
      return true;
    case 8:
      visit(std::string{});
      return true;
    case 10:
      visit(std::uint64_t{});
      return true;
    case 11:
      visit(std::int64_t{});
      return true;
    case 12:
      visit(double{});
      return true;
    default:
      return false;
  }
}

/// Little-endian values appended to a buffer.
class GgufHeader {
 public:
  template <class T>
  void put(const T& value) {
    if constexpr (std::is_same_v<T, std::string>) {
      put(static_cast<std::uint64_t>(value.size()));
      bytes_.append(value);
    } else if constexpr (IsVector<T>::value) {
      put(kGgufType<typename T::value_type>);
      put(static_cast<std::uint64_t>(value.size()));
      for (auto&& element : value)
        put<typename T::value_type>(element);  // vector<bool> has no bool&
    } else if constexpr (std::is_same_v<T, bool>) {
      bytes_.push_back(value ? '\1' : '\0');
    } else {
      char raw[sizeof(T)];
      std::memcpy(raw, &value, sizeof(T));
      bytes_.append(raw, sizeof(T));
    }
  }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

}  // namespace detail

template <class To>
std::vector<To> GgufMetadata::numbers(std::string_view key, const GgufValue& value) const {
  return std::visit(
      [&](const auto& held) -> std::vector<To> {
        using From = std::decay_t<decltype(held)>;
        if constexpr (detail::IsVector<From>::value &&
                      !std::is_same_v<From, std::vector<std::string>> &&
                      !std::is_same_v<From, std::vector<bool>>) {
          std::vector<To> list;
          list.reserve(held.size());
          for (const auto element : held) list.push_back(convert<To>(key, element));
          return list;
        } else {
          fail(key, "expected an array of numbers");
        }
      },
      value);
}

template <class To>
To GgufMetadata::number(std::string_view key, const GgufValue& value) const {
  return std::visit(
      [&](const auto& held) -> To {
        using From = std::decay_t<decltype(held)>;
        if constexpr (std::is_arithmetic_v<From> && !std::is_same_v<From, bool>) {
          return convert<To>(key, held);
        } else {
          fail(key, "expected a number");
        }
      },
      value);
}

template <class To, class From>
To GgufMetadata::convert(std::string_view key, From value) const {
  if constexpr (std::is_floating_point_v<To>) {
    return static_cast<To>(value);
  } else if constexpr (std::is_floating_point_v<From>) {
    fail(key, "expected a whole number");
  } else {
    if (!std::in_range<To>(value)) fail(key, concat("the number ", value, " is out of range"));
    return static_cast<To>(value);
  }
}

template <class T>
const T& GgufMetadata::exact(std::string_view key, const GgufValue& value,
                             std::string_view wanted) const {
  const T* const held = std::get_if<T>(&value);
  if (held == nullptr) fail(key, concat("expected ", wanted));
  return *held;
}

GRAFT_IO const GgufValue* GgufMetadata::find(std::string_view key) const {
  for (const auto& [name, value] : entries_) {
    if (name == key) return &value;
  }
  return nullptr;
}

GRAFT_IO const GgufValue& GgufMetadata::at(std::string_view key) const {
  const GgufValue* const value = find(key);
  if (value == nullptr) throw IoError(concat(file_, ": metadata key '", key, "' is missing"));
  return *value;
}

GRAFT_IO void GgufMetadata::set(std::string_view key, GgufValue value) {
  for (auto& [name, old] : entries_) {
    if (name != key) continue;
    old = std::move(value);
    return;
  }
  entries_.emplace_back(key, std::move(value));
}

GRAFT_IO void GgufMetadata::erase(std::string_view key) {
  std::erase_if(entries_, [&](const auto& entry) { return entry.first == key; });
}

GRAFT_IO void GgufMetadata::append(std::string key, GgufValue value) {
  entries_.emplace_back(std::move(key), std::move(value));
}

GRAFT_IO std::uint64_t GgufMetadata::get_u64(std::string_view key) const {
  return number<std::uint64_t>(key, at(key));
}

GRAFT_IO std::uint64_t GgufMetadata::get_u64(std::string_view key, std::uint64_t otherwise) const {
  return has(key) ? get_u64(key) : otherwise;
}

GRAFT_IO std::int64_t GgufMetadata::get_i64(std::string_view key) const {
  return number<std::int64_t>(key, at(key));
}

GRAFT_IO std::int64_t GgufMetadata::get_i64(std::string_view key, std::int64_t otherwise) const {
  return has(key) ? get_i64(key) : otherwise;
}

GRAFT_IO float GgufMetadata::get_f32(std::string_view key) const {
  return static_cast<float>(number<double>(key, at(key)));
}

GRAFT_IO float GgufMetadata::get_f32(std::string_view key, float otherwise) const {
  return has(key) ? get_f32(key) : otherwise;
}

GRAFT_IO double GgufMetadata::get_f64(std::string_view key) const {
  return number<double>(key, at(key));
}

GRAFT_IO double GgufMetadata::get_f64(std::string_view key, double otherwise) const {
  return has(key) ? get_f64(key) : otherwise;
}

GRAFT_IO bool GgufMetadata::get_bool(std::string_view key) const {
  return exact<bool>(key, at(key), "true or false");
}

GRAFT_IO bool GgufMetadata::get_bool(std::string_view key, bool otherwise) const {
  return has(key) ? get_bool(key) : otherwise;
}

GRAFT_IO const std::string& GgufMetadata::get_string(std::string_view key) const {
  return exact<std::string>(key, at(key), "a string");
}

GRAFT_IO std::string GgufMetadata::get_string(std::string_view key,
                                              std::string_view otherwise) const {
  return has(key) ? get_string(key) : std::string(otherwise);
}

GRAFT_IO const std::vector<std::string>& GgufMetadata::get_strings(std::string_view key) const {
  return exact<std::vector<std::string>>(key, at(key), "an array of strings");
}

GRAFT_IO std::vector<std::string> GgufMetadata::get_strings(
    std::string_view key, std::vector<std::string> otherwise) const {
  return has(key) ? get_strings(key) : std::move(otherwise);
}

GRAFT_IO std::vector<float> GgufMetadata::get_floats(std::string_view key) const {
  return numbers<float>(key, at(key));
}

GRAFT_IO std::vector<float> GgufMetadata::get_floats(std::string_view key,
                                                     std::vector<float> otherwise) const {
  return has(key) ? get_floats(key) : std::move(otherwise);
}

GRAFT_IO std::vector<std::int64_t> GgufMetadata::get_ints(std::string_view key) const {
  return numbers<std::int64_t>(key, at(key));
}

GRAFT_IO std::vector<std::int64_t> GgufMetadata::get_ints(
    std::string_view key, std::vector<std::int64_t> otherwise) const {
  return has(key) ? get_ints(key) : std::move(otherwise);
}

GRAFT_IO void GgufMetadata::fail(std::string_view key, std::string_view complaint) const {
  throw IoError(concat(file_, ": metadata key '", key, "': ", complaint));
}

GRAFT_IO quant::Format GgufTensor::format() const {
  const std::optional<quant::Format> known = quant::format_of_ggml_type(ggml_type);
  if (!known)
    throw IoError(concat(file, ": tensor '", name, "' has the GGML type ", type_name(),
                         ", which graft cannot read"));
  return *known;
}

GRAFT_IO std::string GgufTensor::type_name() const {
  if (const auto known = quant::format_of_ggml_type(ggml_type))
    return std::string(quant::format_info(*known).name);
  switch (ggml_type) {
    case 9:
      return "Q8_1";
    case 15:
      return "Q8_K";
    case 16:
      return "IQ2_XXS";
    case 17:
      return "IQ2_XS";
    case 18:
      return "IQ3_XXS";
    case 19:
      return "IQ1_S";
    case 21:
      return "IQ3_S";
    case 22:
      return "IQ2_S";
    case 24:
      return "I8";
    case 25:
      return "I16";
    case 26:
      return "I32";
    case 27:
      return "I64";
    case 28:
      return "F64";
    case 29:
      return "IQ1_M";
    case 40:
      return "NVFP4";
    default:
      return concat("number ", ggml_type);
  }
}

GRAFT_IO std::vector<float> to_f32(const GgufTensor& tensor) {
  const quant::Format format = tensor.format();
  std::vector<float> values(static_cast<std::size_t>(tensor.elements()));
  quant::decode(format, tensor.data.data(), tensor.elements(), values.data());
  return values;
}

GRAFT_IO GgufFile GgufFile::open(const std::filesystem::path& path) {
  auto mapping = std::make_shared<MappedFile>(path);
  GgufFile file(path.string());
  file.read(mapping->bytes());
  file.mapping_ = mapping.get();
  file.storage_ = std::move(mapping);
  return file;
}

GRAFT_IO GgufFile GgufFile::parse(std::span<const std::byte> bytes, std::string name) {
  GgufFile file(std::move(name));
  file.read(bytes);
  return file;
}

GRAFT_IO GgufFile GgufFile::parse(std::vector<std::byte> bytes, std::string name) {
  auto owned = std::make_shared<std::vector<std::byte>>(std::move(bytes));
  GgufFile file(std::move(name));
  file.read(*owned);
  file.storage_ = std::move(owned);
  return file;
}

GRAFT_IO const GgufTensor* GgufFile::find(std::string_view name) const {
  const auto found =
      std::lower_bound(by_name_.begin(), by_name_.end(), name,
                       [&](std::size_t i, std::string_view key) { return tensors_[i].name < key; });
  return found != by_name_.end() && tensors_[*found].name == name ? &tensors_[*found] : nullptr;
}

GRAFT_IO const GgufTensor& GgufFile::at(std::string_view name) const {
  const GgufTensor* const tensor = find(name);
  if (tensor == nullptr) throw IoError(concat(name_, ": tensor '", name, "' is missing"));
  return *tensor;
}

GRAFT_IO void GgufFile::fail(std::string_view complaint) const {
  throw IoError(concat(name_, ": ", complaint));
}

GRAFT_IO void GgufFile::fail_key(std::string_view key, std::string_view complaint) const {
  throw IoError(concat(name_, ": metadata key '", key, "': ", complaint));
}

GRAFT_IO void GgufFile::fail_tensor(std::string_view tensor, std::string_view complaint) const {
  throw IoError(concat(name_, ": tensor '", tensor, "': ", complaint));
}

template <class T>
T GgufFile::take_value(Cursor& cursor, std::string_view key) const {
  if constexpr (std::is_same_v<T, std::string>) {
    return cursor.take_string();
  } else if constexpr (std::is_same_v<T, bool>) {
    const auto byte = cursor.take<std::uint8_t>();
    if (byte > 1) fail_key(key, concat("expected true or false, found the byte ", byte));
    return byte == 1;
  } else {
    return cursor.take<T>();
  }
}

GRAFT_IO void GgufFile::read(std::span<const std::byte> bytes) {
  Cursor cursor(bytes, name_);
  if (bytes.size() < 4 || std::memcmp(bytes.data(), "GGUF", 4) != 0) fail("not a GGUF file");
  cursor.take_bytes(4);
  version_ = cursor.take<std::uint32_t>();
  if ((version_ & 0xFFFFU) == 0 && version_ != 0) fail("big-endian GGUF files are not supported");
  if (version_ != 2 && version_ != 3) fail(concat("GGUF version ", version_, ", expected 2 or 3"));
  const auto tensor_count = cursor.take<std::uint64_t>();
  const auto key_count = cursor.take<std::uint64_t>();
  // The smallest tensor entry takes 24 bytes, the smallest key 13.
  if (tensor_count > cursor.left() / 24) fail(concat("cannot hold ", tensor_count, " tensors"));
  if (key_count > cursor.left() / 13) fail(concat("cannot hold ", key_count, " metadata keys"));
  read_metadata(cursor, key_count);
  const std::uint64_t alignment = read_alignment();
  std::vector<Offset> offsets = read_tensor_entries(cursor, tensor_count, alignment);
  std::uint64_t data_begin = cursor.position();
  data_begin += (alignment - data_begin % alignment) % alignment;
  if (data_begin > bytes.size()) {
    if (tensor_count != 0) fail("the file ends before the tensor data");
    data_begin = bytes.size();
  }
  place_tensors(std::move(offsets), bytes.subspan(static_cast<std::size_t>(data_begin)));
}

GRAFT_IO void GgufFile::read_metadata(Cursor& cursor, std::uint64_t count) {
  std::unordered_set<std::string> keys;
  for (std::uint64_t i = 0; i < count; ++i) {
    std::string key = cursor.take_string(kLongestName);
    if (!is_utf8(key)) fail(concat("the name of metadata key ", i, " is not UTF-8"));
    if (!keys.insert(key).second) fail_key(key, "appears twice");
    const auto type = cursor.take<std::uint32_t>();
    GgufValue value =
        type == detail::kGgufArray ? read_array(cursor, key) : read_scalar(cursor, key, type);
    metadata_.append(std::move(key), std::move(value));
  }
}

GRAFT_IO GgufValue GgufFile::read_scalar(Cursor& cursor, std::string_view key,
                                         std::uint32_t type) const {
  GgufValue value;
  const bool known = detail::with_gguf_type(
      type, [&](auto kind) { value = take_value<decltype(kind)>(cursor, key); });
  if (!known) fail_key(key, concat("unknown value type ", type));
  return value;
}

GRAFT_IO GgufValue GgufFile::read_array(Cursor& cursor, std::string_view key) const {
  const auto type = cursor.take<std::uint32_t>();
  const auto count = cursor.take<std::uint64_t>();
  if (type == detail::kGgufArray) fail_key(key, "arrays of arrays are not supported");
  GgufValue value;
  const bool known = detail::with_gguf_type(type, [&](auto kind) {
    using Element = decltype(kind);
    constexpr std::uint64_t kSmallest = std::is_same_v<Element, std::string> ? 8 : sizeof(Element);
    if (count > cursor.left() / kSmallest)
      fail_key(key, concat("the file cannot hold ", count, " elements"));
    std::vector<Element> list;
    list.reserve(static_cast<std::size_t>(count));
    for (std::uint64_t i = 0; i < count; ++i) list.push_back(take_value<Element>(cursor, key));
    value = std::move(list);
  });
  if (!known) fail_key(key, concat("unknown element type ", type));
  return value;
}

GRAFT_IO std::uint64_t GgufFile::read_alignment() const {
  const std::uint64_t alignment = metadata_.get_u64("general.alignment", 32);
  if (alignment < 8 || (alignment & (alignment - 1)) != 0 || alignment > (1U << 30)) {
    fail_key("general.alignment", concat("expected a power of two from 8 on, found ", alignment));
  }
  return alignment;
}

GRAFT_IO std::vector<GgufFile::Offset> GgufFile::read_tensor_entries(Cursor& cursor,
                                                                     std::uint64_t count,
                                                                     std::uint64_t alignment) {
  std::vector<Offset> offsets;
  for (std::uint64_t i = 0; i < count; ++i) {
    GgufTensor tensor;
    tensor.file = name_;
    tensor.name = cursor.take_string(kLongestName);
    if (!is_utf8(tensor.name)) fail(concat("the name of tensor ", i, " is not UTF-8"));
    const auto rank = cursor.take<std::uint32_t>();
    if (rank > kLargestRank)
      fail_tensor(tensor.name, concat(rank, " axes, expected ", kLargestRank, " at most"));
    Index elements = 1;
    for (std::uint32_t axis = 0; axis < rank; ++axis) {
      const auto length = cursor.take<std::uint64_t>();
      // Zeros do not hide an overflow: products of some of the lengths must fit too.
      if (!std::in_range<Index>(length) ||
          __builtin_mul_overflow(elements, std::max<Index>(static_cast<Index>(length), 1),
                                 &elements)) {
        fail_tensor(tensor.name, "the shape is too large");
      }
      tensor.shape.insert(tensor.shape.begin(), static_cast<Index>(length));
    }
    tensor.ggml_type = cursor.take<std::uint32_t>();
    const auto offset = cursor.take<std::uint64_t>();
    if (offset % alignment != 0) {
      fail_tensor(tensor.name, concat("offset ", offset, " is not a multiple of ", alignment));
    }
    offsets.push_back({offset, tensors_.size()});
    tensors_.push_back(std::move(tensor));
  }
  by_name_.resize(tensors_.size());
  for (std::size_t i = 0; i < by_name_.size(); ++i) by_name_[i] = i;
  std::sort(by_name_.begin(), by_name_.end(),
            [&](std::size_t a, std::size_t b) { return tensors_[a].name < tensors_[b].name; });
  for (std::size_t i = 1; i < by_name_.size(); ++i) {
    const std::string& name = tensors_[by_name_[i]].name;
    if (name == tensors_[by_name_[i - 1]].name) fail_tensor(name, "the name appears twice");
  }
  return offsets;
}

GRAFT_IO std::optional<std::uint64_t> GgufFile::stored_bytes(const GgufTensor& tensor) const {
  Index block_elements = 1, block_bytes = 0;
  if (const auto known = quant::format_of_ggml_type(tensor.ggml_type)) {
    block_elements = quant::format_info(*known).block_elements;
    block_bytes = quant::format_info(*known).block_bytes;
  } else {
    switch (tensor.ggml_type) {
      case 24:
        block_bytes = 1;
        break;
      case 25:
        block_bytes = 2;
        break;
      case 26:
        block_bytes = 4;
        break;
      case 27:
      case 28:
        block_bytes = 8;
        break;
      default:
        return std::nullopt;
    }
  }
  if (tensor.columns() % block_elements != 0) {
    fail_tensor(tensor.name, concat("rows of ", tensor.columns(),
                                    " values are not whole blocks of ", tensor.type_name()));
  }
  Index bytes = 0;
  if (__builtin_mul_overflow(tensor.elements() / block_elements, block_bytes, &bytes)) {
    fail_tensor(tensor.name, "the shape is too large");
  }
  return static_cast<std::uint64_t>(bytes);
}

GRAFT_IO void GgufFile::place_tensors(std::vector<Offset> offsets,
                                      std::span<const std::byte> data) {
  std::sort(offsets.begin(), offsets.end(), [](const Offset& a, const Offset& b) {
    return std::pair(a.begin, a.tensor) < std::pair(b.begin, b.tensor);
  });
  for (std::size_t i = 0; i < offsets.size(); ++i) {
    GgufTensor& tensor = tensors_[offsets[i].tensor];
    const std::uint64_t begin = offsets[i].begin;
    if (begin > data.size()) {
      fail_tensor(tensor.name,
                  concat("offset ", begin, " leaves the ", data.size(), " bytes of data"));
    }
    const std::uint64_t limit = i + 1 < offsets.size()
                                    ? std::min<std::uint64_t>(offsets[i + 1].begin, data.size())
                                    : data.size();
    const std::uint64_t size = stored_bytes(tensor).value_or(limit - begin);
    if (size > data.size() - begin) {
      fail_tensor(tensor.name,
                  concat("expected ", size, " bytes, the file ends after ", data.size() - begin));
    }
    if (size > limit - begin) {
      fail_tensor(tensor.name, concat("overlaps '", tensors_[offsets[i + 1].tensor].name, "'"));
    }
    tensor.data = data.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(size));
  }
}

GRAFT_IO void write_gguf(const std::filesystem::path& path, const GgufMetadata& metadata,
                         const std::vector<GgufTensorToWrite>& tensors) {
  const auto fail = [&](std::string_view what, std::string_view name, std::string_view complaint) {
    throw ValueError(
        concat("write_gguf '", path.string(), "': ", what, " '", name, "': ", complaint));
  };
  const std::uint64_t alignment = metadata.get_u64("general.alignment", 32);
  if (alignment < 8 || (alignment & (alignment - 1)) != 0) {
    fail("metadata key", "general.alignment", "expected a power of two from 8 on");
  }
  detail::GgufHeader header;
  header.put(std::uint32_t{0x46554747});  // "GGUF"
  header.put(std::uint32_t{3});
  header.put(static_cast<std::uint64_t>(tensors.size()));
  header.put(static_cast<std::uint64_t>(metadata.entries().size()));
  std::set<std::string_view> names;
  for (const auto& [key, value] : metadata.entries()) {
    if (!is_utf8(key)) fail("metadata key", key, "the name is not UTF-8");
    if (!names.insert(key).second) fail("metadata key", key, "the name appears twice");
    header.put(key);
    std::visit(
        [&](const auto& held) {
          using Held = std::decay_t<decltype(held)>;
          header.put(detail::IsVector<Held>::value ? detail::kGgufArray : detail::kGgufType<Held>);
          header.put(held);
        },
        value);
  }
  names.clear();
  std::uint64_t offset = 0;
  for (const GgufTensorToWrite& tensor : tensors) {
    if (!is_utf8(tensor.name)) fail("tensor", tensor.name, "the name is not UTF-8");
    if (!names.insert(tensor.name).second) fail("tensor", tensor.name, "the name appears twice");
    if (tensor.shape.size() > 4) fail("tensor", tensor.name, "more than 4 axes");
    Index elements = 1;
    for (const Index length : tensor.shape) {
      if (length < 0 || __builtin_mul_overflow(elements, length, &elements)) {
        fail("tensor", tensor.name, "the shape is negative or too large");
      }
    }
    if (const auto format = quant::format_of_ggml_type(tensor.ggml_type)) {
      const quant::FormatInfo& info = quant::format_info(*format);
      const Index columns = tensor.shape.empty() ? 1 : tensor.shape.back();
      if (columns % info.block_elements != 0) {
        fail("tensor", tensor.name,
             concat("rows of ", columns, " values are not whole blocks of ", info.name));
      }
      const Index expected = elements / info.block_elements * info.block_bytes;
      if (expected != std::ssize(tensor.data)) {
        fail("tensor", tensor.name,
             concat("expected ", expected, " bytes by type and shape, found ", tensor.data.size()));
      }
    }
    header.put(tensor.name);
    header.put(static_cast<std::uint32_t>(tensor.shape.size()));
    for (auto length = tensor.shape.rbegin(); length != tensor.shape.rend(); ++length) {
      header.put(static_cast<std::uint64_t>(*length));
    }
    header.put(tensor.ggml_type);
    header.put(offset);
    offset += tensor.data.size();
    offset += (alignment - offset % alignment) % alignment;
  }
  AtomicFile file(path);
  file.write(header.bytes());
  file.pad_to(alignment);
  for (const GgufTensorToWrite& tensor : tensors) {
    file.write(tensor.data);
    file.pad_to(alignment);
  }
  file.commit();
}

}  // namespace graft::inline v0_1::io
