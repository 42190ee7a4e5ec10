#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

#include "graft/config.hpp"

namespace graft::inline v0_1 {

/// Base of every exception that graft throws.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Shapes that do not fit together; names the operation, the expected and the actual shape.
class ShapeError : public Error {
 public:
  using Error::Error;
};

/// A value, an option or a name outside of what is allowed.
class ValueError : public Error {
 public:
  using Error::Error;
};

/// A file that cannot be read or written, or whose content is not what its format says.
class IoError : public Error {
 public:
  using Error::Error;
};

namespace detail {

GRAFT_KERNEL void append_part(std::string& to, std::string_view text);
GRAFT_KERNEL void append_part(std::string& to, const char* text);
GRAFT_KERNEL void append_part(std::string& to, const std::string& text);
GRAFT_KERNEL void append_part(std::string& to, bool value);
GRAFT_KERNEL void append_part(std::string& to, char value);
GRAFT_KERNEL void append_part(std::string& to, int value);
GRAFT_KERNEL void append_part(std::string& to, unsigned value);
GRAFT_KERNEL void append_part(std::string& to, long value);
GRAFT_KERNEL void append_part(std::string& to, unsigned long value);
GRAFT_KERNEL void append_part(std::string& to, long long value);
GRAFT_KERNEL void append_part(std::string& to, unsigned long long value);
GRAFT_KERNEL void append_part(std::string& to, double value);

}  // namespace detail

/// Concatenates texts and numbers into a message.
// By value: literals of all lengths share one instantiation, and there are hundreds of messages.
template <class... Parts>
std::string concat(Parts... parts) {
  std::string text;
  (detail::append_part(text, parts), ...);
  return text;
}

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/base/impl/error_impl.hpp"
#endif
