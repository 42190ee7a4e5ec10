#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "graft/base/error.hpp"
#include "graft/base/types.hpp"
#include "graft/config.hpp"
#include "graft/io/mapped_file.hpp"
#include "graft/quant/format.hpp"

namespace graft::inline v0_1::io {

/// A metadata value of a GGUF file. The alternatives up to the array ones are in the order of the
/// format's type numbers, with `string` (8) and without `array` (9).
using GgufValue =
    std::variant<std::uint8_t, std::int8_t, std::uint16_t, std::int16_t, std::uint32_t,
                 std::int32_t, float, bool, std::string, std::uint64_t, std::int64_t, double,
                 std::vector<std::uint8_t>, std::vector<std::int8_t>, std::vector<std::uint16_t>,
                 std::vector<std::int16_t>, std::vector<std::uint32_t>, std::vector<std::int32_t>,
                 std::vector<float>, std::vector<bool>, std::vector<std::string>,
                 std::vector<std::uint64_t>, std::vector<std::int64_t>, std::vector<double>>;

namespace detail {

/// True for the array alternatives of GgufValue.
template <class T>
struct IsVector : std::false_type {};
template <class T>
struct IsVector<std::vector<T>> : std::true_type {};

}  // namespace detail

/// The metadata of a GGUF file: keys and values in the order of the file.
///
/// The typed getters convert between number types when nothing is lost. Without a default, a
/// missing key is an error; with one, only a value of the wrong kind is. Errors: IoError that names
/// the file and the key.
class GgufMetadata {
 public:
  /// @param file  name of the file, for messages
  explicit GgufMetadata(std::string file = "GGUF metadata") : file_(std::move(file)) {}

  const std::vector<std::pair<std::string, GgufValue>>& entries() const { return entries_; }
  const GgufValue* find(std::string_view key) const;
  bool has(std::string_view key) const { return find(key) != nullptr; }
  const GgufValue& at(std::string_view key) const;
  /// Adds a key, or replaces its value.
  void set(std::string_view key, GgufValue value);
  void erase(std::string_view key);
  /// Adds a key that is known to be new.
  void append(std::string key, GgufValue value);

  std::uint64_t get_u64(std::string_view key) const;
  std::int64_t get_i64(std::string_view key) const;
  float get_f32(std::string_view key) const;
  double get_f64(std::string_view key) const;
  bool get_bool(std::string_view key) const;
  const std::string& get_string(std::string_view key) const;
  const std::vector<std::string>& get_strings(std::string_view key) const;
  std::vector<float> get_floats(std::string_view key) const;
  std::vector<std::int64_t> get_ints(std::string_view key) const;

  std::uint64_t get_u64(std::string_view key, std::uint64_t otherwise) const;
  std::int64_t get_i64(std::string_view key, std::int64_t otherwise) const;
  float get_f32(std::string_view key, float otherwise) const;
  double get_f64(std::string_view key, double otherwise) const;
  bool get_bool(std::string_view key, bool otherwise) const;
  std::string get_string(std::string_view key, std::string_view otherwise) const;
  std::vector<std::string> get_strings(std::string_view key,
                                       std::vector<std::string> otherwise) const;
  std::vector<float> get_floats(std::string_view key, std::vector<float> otherwise) const;
  std::vector<std::int64_t> get_ints(std::string_view key,
                                     std::vector<std::int64_t> otherwise) const;

 private:
  [[noreturn]] void fail(std::string_view key, std::string_view complaint) const;

  template <class T>
  const T& exact(std::string_view key, const GgufValue& value, std::string_view wanted) const;

  /// A number as another type; whole numbers must stay what they are.
  template <class To, class From>
  To convert(std::string_view key, From value) const;
  template <class To>
  To number(std::string_view key, const GgufValue& value) const;
  template <class To>
  std::vector<To> numbers(std::string_view key, const GgufValue& value) const;

  std::string file_;
  std::vector<std::pair<std::string, GgufValue>> entries_;
};

/// A tensor inside of a GGUF file. `shape` is in row-major order (rows first, columns last), the
/// reverse of the file's.
struct GgufTensor {
  std::string name;
  std::vector<Index> shape;
  std::uint32_t ggml_type = 0;
  std::span<const std::byte> data;
  std::string file;  ///< for messages

  Index elements() const {
    Index count = 1;
    for (const Index length : shape) count *= length;
    return count;
  }
  /// Length of the last axis (1 for a scalar) and the product of the others.
  Index columns() const { return shape.empty() ? 1 : shape.back(); }
  Index rows() const {
    Index count = 1;
    for (std::size_t i = 0; i + 1 < shape.size(); ++i) count *= shape[i];
    return count;
  }
  /// How the data is stored. Errors: IoError that names file, tensor and type when graft cannot
  /// read that type.
  quant::Format format() const;
  /// Name of the type, also of those that graft cannot read.
  std::string type_name() const;
};

/// The values of a tensor as f32. Errors: those of `GgufTensor::format`.
GRAFT_IO std::vector<float> to_f32(const GgufTensor& tensor);

/// A tensor to be stored. The data is not owned; it holds whole rows of the type.
struct GgufTensorToWrite {
  std::string name;
  std::vector<Index> shape;     ///< row-major order
  std::uint32_t ggml_type = 0;  ///< `quant::format_info(format).ggml_type`
  std::span<const std::byte> data;
};

/// A GGUF file, version 2 or 3, little endian: metadata and tensors as views into the mapped file.
///
/// The views stay valid while this object or a copy of `storage()` lives. The file is checked
/// before anything is believed: every count against the bytes that are left, names (UTF-8, once
/// each), shapes without overflow, rows of whole blocks, offsets aligned, inside of the file and
/// free of overlap. A tensor of a type that graft does not know is kept; its data extends to the
/// next tensor, and only `format()` complains. Errors: IoError that names the file and the key or
/// tensor.
class GgufFile {
 public:
  static GgufFile open(const std::filesystem::path& path);
  /// Reads bytes in memory that outlive the file. `name` appears in messages.
  static GgufFile parse(std::span<const std::byte> bytes, std::string name);
  /// The same, and owns the bytes.
  static GgufFile parse(std::vector<std::byte> bytes, std::string name);

  const std::string& name() const { return name_; }
  std::uint32_t version() const { return version_; }
  const GgufMetadata& metadata() const { return metadata_; }
  /// All tensors, in the order of the file.
  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  const GgufTensor* find(std::string_view name) const;
  const GgufTensor& at(std::string_view name) const;
  /// Keeps the bytes behind the views alive (null when they belong to the caller).
  std::shared_ptr<const void> storage() const { return storage_; }
  /// Lets go of the memory behind a mapped file; what is touched afterwards is read again.
  void release() const {
    if (mapping_ != nullptr) mapping_->release(mapping_->bytes());
  }

 private:
  static constexpr std::uint64_t kLongestName = 65535;
  static constexpr std::uint32_t kLargestRank = 4;

  /// Reads values one after the other; every request is checked against the bytes that are left.
  class Cursor {
   public:
    Cursor(std::span<const std::byte> bytes, const std::string& file)
        : bytes_(bytes), file_(&file) {}

    std::size_t position() const { return position_; }
    std::size_t left() const { return bytes_.size() - position_; }
    template <class T>
    T take() {
      T value;
      std::memcpy(&value, take_bytes(sizeof value), sizeof value);
      return value;
    }
    const std::byte* take_bytes(std::uint64_t count) {
      if (count > left()) {
        throw IoError(concat(*file_, ": the file ends at byte ", bytes_.size(), ", expected ",
                             count, " more bytes at byte ", position_));
      }
      const std::byte* const start = bytes_.data() + position_;
      position_ += static_cast<std::size_t>(count);
      return start;
    }
    std::string take_string(std::uint64_t longest = std::numeric_limits<std::uint64_t>::max()) {
      const auto length = take<std::uint64_t>();
      if (length > longest) {
        throw IoError(concat(*file_, ": a name of ", length, " bytes at byte ", position_,
                             ", expected ", longest, " at most"));
      }
      const std::byte* const start = take_bytes(length);
      return std::string(reinterpret_cast<const char*>(start), static_cast<std::size_t>(length));
    }

   private:
    std::span<const std::byte> bytes_;
    const std::string* file_;
    std::size_t position_ = 0;
  };

  struct Offset {
    std::uint64_t begin = 0;
    std::size_t tensor = 0;
  };

  explicit GgufFile(std::string name) : name_(std::move(name)), metadata_(name_) {}

  [[noreturn]] void fail(std::string_view complaint) const;
  [[noreturn]] void fail_key(std::string_view key, std::string_view complaint) const;
  [[noreturn]] void fail_tensor(std::string_view tensor, std::string_view complaint) const;

  void read(std::span<const std::byte> bytes);

  void read_metadata(Cursor& cursor, std::uint64_t count);

  template <class T>
  T take_value(Cursor& cursor, std::string_view key) const;

  GgufValue read_scalar(Cursor& cursor, std::string_view key, std::uint32_t type) const;

  GgufValue read_array(Cursor& cursor, std::string_view key) const;

  std::uint64_t read_alignment() const;

  std::vector<Offset> read_tensor_entries(Cursor& cursor, std::uint64_t count,
                                          std::uint64_t alignment);

  /// Bytes of a tensor by type and shape; nothing for types of unknown size.
  std::optional<std::uint64_t> stored_bytes(const GgufTensor& tensor) const;

  void place_tensors(std::vector<Offset> offsets, std::span<const std::byte> data);

  std::string name_;
  std::uint32_t version_ = 0;
  GgufMetadata metadata_;
  std::vector<GgufTensor> tensors_;
  std::vector<std::size_t> by_name_;
  std::shared_ptr<const void> storage_;
  const MappedFile* mapping_ = nullptr;  // the storage, if it is a mapping
};

/// Writes a GGUF file (version 3) atomically: temporary file, flush, rename. The alignment is that
/// of the metadata key `general.alignment`, else 32. What GgufFile reads comes out the same.
/// Errors: ValueError for a name twice or not UTF-8, more than 4 axes, or data that do not fit type
/// and shape; IoError when the file cannot be written.
GRAFT_IO void write_gguf(const std::filesystem::path& path, const GgufMetadata& metadata,
                         const std::vector<GgufTensorToWrite>& tensors);

}  // namespace graft::inline v0_1::io

#if !defined(GRAFT_FILES_COMPILED)
#include "graft/io/impl/gguf_impl.hpp"
#endif
