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

inline void append_part(std::string& to, std::string_view text) {
  to.append(text.data(), text.size());
}
inline void append_part(std::string& to, const char* text) { to.append(text); }
inline void append_part(std::string& to, const std::string& text) { to.append(text); }
inline void append_part(std::string& to, bool value) { to.append(value ? "true" : "false"); }
inline void append_part(std::string& to, char value) { to.push_back(value); }
template <class Number>
  requires requires(Number n) { std::to_string(n); }
void append_part(std::string& to, Number value) {
  to.append(std::to_string(value));
}

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
