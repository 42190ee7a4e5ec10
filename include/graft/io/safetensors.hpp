#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/base/error.hpp"
#include "graft/base/types.hpp"
#include "graft/config.hpp"

namespace graft::inline v0_1::io {

class JsonView;

/// Element types of a safetensors file, in the order by which its writer sorts them (widest last).
enum class DType {
  boolean,
  u8,
  i8,
  f8_e5m2,
  f8_e4m3,
  i16,
  u16,
  f16,
  bf16,
  i32,
  u32,
  f32,
  f64,
  i64,
  u64
};

struct DTypeInfo {
  std::string_view name;  ///< as the file spells it
  Index bytes;            ///< of one element
};

/// Name and size of an element type.
inline const DTypeInfo& dtype_info(DType dtype) {
  static constexpr std::array<DTypeInfo, 15> kTable{{{"BOOL", 1},
                                                     {"U8", 1},
                                                     {"I8", 1},
                                                     {"F8_E5M2", 1},
                                                     {"F8_E4M3", 1},
                                                     {"I16", 2},
                                                     {"U16", 2},
                                                     {"F16", 2},
                                                     {"BF16", 2},
                                                     {"I32", 4},
                                                     {"U32", 4},
                                                     {"F32", 4},
                                                     {"F64", 8},
                                                     {"I64", 8},
                                                     {"U64", 8}}};
  return kTable[static_cast<std::size_t>(dtype)];
}

/// A named tensor inside of a file: row-major, little endian, not necessarily aligned.
struct TensorView {
  std::string name;
  DType dtype = DType::f32;
  std::vector<Index> shape;
  std::span<const std::byte> data;

  /// Product of the shape; 1 for a scalar.
  Index elements() const {
    Index count = 1;
    for (const Index size : shape) count *= size;
    return count;
  }
};

/// A tensor to be stored. The data is not owned and must hold exactly elements × size bytes.
struct TensorToWrite {
  std::string name;
  DType dtype = DType::f32;
  std::vector<Index> shape;
  std::span<const std::byte> data;
};

namespace detail {

/// Bytes of an array; false when a length is negative or any product of lengths exceeds the range
/// of Index.
GRAFT_IO bool stored_bytes(const std::vector<Index>& shape, Index element_bytes, Index& bytes);

/// Tensors sorted by name, found by bisection.
GRAFT_IO const TensorView* find_tensor(const std::vector<TensorView>& tensors,
                                       std::string_view name);

GRAFT_IO bool parse_dtype(std::string_view name, DType& dtype);

}  // namespace detail

/// A safetensors file: an 8-byte length, a JSON header, the tensors' bytes.
///
/// Tensors are views into the mapped file and stay valid while this object or a copy of `storage()`
/// lives. The file is checked before anything is believed: header length and JSON, dtypes, shapes
/// against byte ranges (without overflow), names once each, ranges in a row without gap or overlap
/// up to the end of the file. Errors: IoError that names the file and the tensor.
class SafetensorsFile {
 public:
  static SafetensorsFile open(const std::filesystem::path& path);
  /// Reads bytes in memory that outlive the file. `name` appears in messages.
  static SafetensorsFile parse(std::span<const std::byte> bytes, std::string name);
  /// The same, and owns the bytes.
  static SafetensorsFile parse(std::vector<std::byte> bytes, std::string name);

  /// Name of the file, as messages give it.
  const std::string& name() const { return name_; }
  /// All tensors, sorted by name.
  const std::vector<TensorView>& tensors() const { return tensors_; }
  const TensorView* find(std::string_view name) const;
  const TensorView& at(std::string_view name) const;
  /// Free text pairs of the header.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  /// Keeps the bytes behind the views alive (null when they belong to the caller).
  std::shared_ptr<const void> storage() const { return storage_; }

 private:
  static constexpr std::uint64_t kLargestHeader = 100'000'000;  // the limit of the format
  static constexpr std::size_t kLargestRank = 64;

  void read(std::span<const std::byte> bytes, std::string name);

  void read_tensors(const JsonView& header, std::span<const std::byte> data);

  std::vector<Index> read_shape(const JsonView& list, const std::string& tensor) const;

  [[noreturn]] void fail(std::string_view complaint) const;
  [[noreturn]] void fail(std::string_view tensor, std::string_view complaint) const;

  std::string name_;
  std::vector<TensorView> tensors_;
  std::map<std::string, std::string> metadata_;
  std::shared_ptr<const void> storage_;
};

/// The weights of a model: one safetensors file, or the shards that an index file lists.
///
/// A folder is searched for `model.safetensors`, then `model.safetensors.index.json`. Lookup as in
/// SafetensorsFile. Errors: IoError that names the file and the tensor (listed but absent, unsafe
/// shard names).
class SafetensorsModel {
 public:
  static SafetensorsModel open(const std::filesystem::path& folder_or_file);

  const std::string& name() const { return name_; }
  /// All tensors, sorted by name.
  const std::vector<TensorView>& tensors() const { return tensors_; }
  const TensorView* find(std::string_view name) const;
  const TensorView& at(std::string_view name) const;
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::vector<SafetensorsFile>& files() const { return files_; }
  /// Keeps the bytes behind the views alive.
  std::shared_ptr<const void> storage() const;

 private:
  void open_shards(const std::filesystem::path& index_path);

  std::string name_;
  std::vector<SafetensorsFile> files_;
  std::vector<TensorView> tensors_;
  std::map<std::string, std::string> metadata_;
};

/// Writes a safetensors file atomically (temporary file, flush, rename).
///
/// The layout is that of the format's own writer: header padded with blanks to 8 bytes, tensors
/// from the widest dtype to the narrowest and by name within, so that each starts at a multiple of
/// its element size. Errors: ValueError for a name twice, a reserved or non-UTF-8 name, or data
/// that do not fit dtype and shape; IoError when the file cannot be written.
GRAFT_IO void write_safetensors(const std::filesystem::path& path,
                                const std::vector<TensorToWrite>& tensors,
                                const std::map<std::string, std::string>& metadata = {
                                    {"format", "pt"}});

/// Writes the elements as f32 (rounded to nearest where needed). Errors: ShapeError when `out` has
/// another size.
GRAFT_IO void to_f32(const TensorView& tensor, std::span<float> out);

/// The elements as f32, f64 or i64, from any dtype.
GRAFT_IO std::vector<float> to_f32(const TensorView& tensor);
GRAFT_IO std::vector<double> to_f64(const TensorView& tensor);
/// True if both have the same shape and the same values, whatever they are stored as.
GRAFT_IO bool same_values(const TensorView& a, const TensorView& b);
/// Errors: ValueError when an element is not a whole number of 64 bits.
GRAFT_IO std::vector<std::int64_t> to_i64(const TensorView& tensor);

}  // namespace graft::inline v0_1::io

#if !defined(GRAFT_FILES_COMPILED)
#include "graft/io/impl/safetensors_impl.hpp"
#endif
