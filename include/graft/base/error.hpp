#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

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

inline std::string to_text(std::string_view text) { return std::string(text); }
inline std::string to_text(const char* text) { return text; }
inline std::string to_text(const std::string& text) { return text; }
inline std::string to_text(bool value) { return value ? "true" : "false"; }
inline std::string to_text(char value) { return std::string(1, value); }
template <class Number>
  requires requires(Number n) { std::to_string(n); }
std::string to_text(Number value) {
  return std::to_string(value);
}

}  // namespace detail

/// Concatenates texts and numbers into a message.
template <class... Parts>
std::string concat(const Parts&... parts) {
  std::string text;
  (text.append(detail::to_text(parts)), ...);
  return text;
}

}  // namespace graft::inline v0_1
