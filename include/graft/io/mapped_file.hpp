#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <utility>

#include "graft/base/error.hpp"
#include "graft/base/types.hpp"

namespace graft::inline v0_1::io {

namespace detail {

/// A file descriptor opened for reading; IoError names the file.
class ReadDescriptor {
 public:
  explicit ReadDescriptor(const std::filesystem::path& path)
      : value_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (value_ < 0)
      throw IoError(concat("cannot open '", path.string(), "': ", std::strerror(errno)));
    if (::fstat(value_, &status_) != 0 || S_ISDIR(status_.st_mode)) {
      ::close(value_);
      throw IoError(concat("cannot read '", path.string(), "': it is a folder"));
    }
  }
  ReadDescriptor(const ReadDescriptor&) = delete;
  ReadDescriptor& operator=(const ReadDescriptor&) = delete;
  ~ReadDescriptor() { ::close(value_); }

  int get() const { return value_; }
  bool is_regular() const { return S_ISREG(status_.st_mode); }
  std::size_t size() const { return static_cast<std::size_t>(status_.st_size); }

 private:
  int value_;
  struct ::stat status_ {};
};

}  // namespace detail

/// A file mapped into memory, read-only. Pages are read from the disk when they are first touched
/// and can be dropped again by the system, so a mapped model needs no copy of its weights.
///
/// The file must not shrink while it is mapped (replace files by renaming, as AtomicFile does: the
/// mapping then keeps the old content). Errors: IoError that names the file.
class MappedFile {
 public:
  MappedFile() = default;
  explicit MappedFile(std::filesystem::path path) : path_(std::move(path)) {
    const detail::ReadDescriptor descriptor(path_);
    if (!descriptor.is_regular()) {
      throw IoError(concat("cannot map '", path_.string(), "': it is not a regular file"));
    }
    size_ = descriptor.size();
    if (size_ == 0) return;
    void* const address = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, descriptor.get(), 0);
    if (address == MAP_FAILED) {
      throw IoError(concat("cannot map '", path_.string(), "': ", std::strerror(errno)));
    }
    data_ = static_cast<const std::byte*>(address);
  }
  MappedFile(MappedFile&& other) noexcept
      : path_(std::move(other.path_)),
        data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)) {}
  MappedFile& operator=(MappedFile&& other) noexcept {
    MappedFile moved(std::move(other));
    std::swap(path_, moved.path_);
    std::swap(data_, moved.data_);
    std::swap(size_, moved.size_);
    return *this;
  }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile() {
    if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
  }

  const std::filesystem::path& path() const { return path_; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }

  /// Lets go of the memory behind a part of the mapping, for example after its weights were
  /// repacked. The part stays valid: touching it reads the file again. Bytes outside of the mapping
  /// are ignored.
  void release(std::span<const std::byte> part) const {
    if (data_ == nullptr || part.empty()) return;
    const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
    const auto begin = reinterpret_cast<std::uintptr_t>(data_);
    const auto end = begin + size_;
    auto first = reinterpret_cast<std::uintptr_t>(part.data());
    auto last = first + part.size();
    if (first < begin || last > end) return;
    first = (first + page - 1) / page * page;
    last = last == end ? (last + page - 1) / page * page : last / page * page;
    if (first < last) ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
  }

 private:
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

/// The whole content of a file (pipes too). Errors: IoError when it cannot be read or exceeds
/// `max_bytes`.
inline std::string read_file(const std::filesystem::path& path,
                             std::size_t max_bytes = std::size_t{1} << 32) {
  const detail::ReadDescriptor descriptor(path);
  const auto too_large = [&] {
    return IoError(concat("cannot read '", path.string(), "': larger than ", max_bytes, " bytes"));
  };
  std::string text;
  if (descriptor.is_regular()) {
    if (descriptor.size() > max_bytes) throw too_large();
    text.reserve(descriptor.size());
  }
  char block[1 << 16];
  for (;;) {
    const ssize_t count = ::read(descriptor.get(), block, sizeof block);
    if (count < 0) {
      if (errno == EINTR) continue;
      throw IoError(concat("cannot read '", path.string(), "': ", std::strerror(errno)));
    }
    if (count == 0) return text;
    if (static_cast<std::size_t>(count) > max_bytes - text.size()) throw too_large();
    text.append(block, static_cast<std::size_t>(count));
  }
}

}  // namespace graft::inline v0_1::io
