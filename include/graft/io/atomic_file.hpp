#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "graft/base/error.hpp"

namespace graft::inline v0_1::io {

/// Makes the names in a folder durable: new, renamed and removed entries survive a power cut.
inline void flush_folder(const std::filesystem::path& path) {
  const std::filesystem::path folder = path.empty() ? std::filesystem::path(".") : path;
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;  // a folder that may be written to but not read
  // Some file systems cannot flush a folder; its files are safe by then.
  (void)::fsync(descriptor);
  ::close(descriptor);
}

/// A file that appears under its name complete or not at all.
///
/// Bytes go to a temporary file in the same folder; `commit` flushes it to the disk, renames it
/// over the target and flushes the folder. Without `commit` the destructor removes the temporary
/// file and an older file of that name stays as it was. A power cut between the two leaves the old
/// or the new content. Errors: IoError that names the file and the system's reason.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path) : path_(std::move(path)) {
    const std::filesystem::path folder = path_.parent_path();
    for (int attempt = 0; attempt < 100; ++attempt) {
      const std::string suffix = concat(".", ::getpid(), "-", unique_number(), ".tmp");
      temporary_ = folder / concat(".", path_.filename().string(), suffix);
      descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
      if (descriptor_ >= 0) return;
      if (errno != EEXIST) break;
    }
    throw IoError(concat("cannot create '", path_.string(), "': ", std::strerror(errno)));
  }
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
    if (!committed_) ::unlink(temporary_.c_str());
  }

  /// The name under which the file appears.
  const std::filesystem::path& path() const { return path_; }
  /// Bytes written so far.
  std::uint64_t size() const { return size_; }

  void write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
      if (written < 0) {
        if (errno == EINTR) continue;
        fail("cannot write");
      }
      size_ += static_cast<std::uint64_t>(written);
      bytes = bytes.subspan(static_cast<std::size_t>(written));
    }
  }
  void write(std::string_view text) { write(std::as_bytes(std::span(text.data(), text.size()))); }
  /// Zero bytes up to the next multiple of `alignment`.
  void pad_to(std::uint64_t alignment) {
    static constexpr std::byte kZeros[64] = {};
    for (std::uint64_t missing = (alignment - size_ % alignment) % alignment; missing > 0;) {
      const std::size_t count = static_cast<std::size_t>(missing < 64 ? missing : 64);
      write(std::span(kZeros, count));
      missing -= count;
    }
  }

  /// Makes the content durable and visible. Call it once, last.
  void commit() {
    if (::fsync(descriptor_) != 0) fail("cannot flush");
    const int closed = ::close(std::exchange(descriptor_, -1));
    if (closed != 0) fail("cannot close");
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("cannot rename into place");
    committed_ = true;
    flush_folder(path_.parent_path());
  }

 private:
  static std::uint64_t unique_number() {
    static std::uint64_t counter = 0;
    std::timespec now{};
    ::clock_gettime(CLOCK_REALTIME, &now);
    return static_cast<std::uint64_t>(now.tv_nsec) +
           (__atomic_fetch_add(&counter, 1, __ATOMIC_RELAXED) << 32);
  }

  [[noreturn]] void fail(std::string_view what) const {
    throw IoError(concat(what, " '", path_.string(), "': ", std::strerror(errno)));
  }

  std::filesystem::path path_;
  std::filesystem::path temporary_;
  int descriptor_ = -1;
  std::uint64_t size_ = 0;
  bool committed_ = false;
};

/// Writes a whole file so that readers see the old content or the new, never a part.
inline void write_file_atomically(const std::filesystem::path& path,
                                  std::span<const std::byte> bytes) {
  AtomicFile file(path);
  file.write(bytes);
  file.commit();
}
inline void write_file_atomically(const std::filesystem::path& path, std::string_view text) {
  write_file_atomically(path, std::as_bytes(std::span(text.data(), text.size())));
}

}  // namespace graft::inline v0_1::io
