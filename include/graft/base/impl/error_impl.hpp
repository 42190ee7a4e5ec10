#pragma once

#include "graft/base/error.hpp"

namespace graft::inline v0_1::detail {

GRAFT_KERNEL void append_part(std::string& to, std::string_view text) {
  to.append(text.data(), text.size());
}
GRAFT_KERNEL void append_part(std::string& to, const char* text) { to.append(text); }
GRAFT_KERNEL void append_part(std::string& to, const std::string& text) { to.append(text); }
GRAFT_KERNEL void append_part(std::string& to, bool value) { to.append(value ? "true" : "false"); }
GRAFT_KERNEL void append_part(std::string& to, char value) { to.push_back(value); }
GRAFT_KERNEL void append_part(std::string& to, int value) { to.append(std::to_string(value)); }
GRAFT_KERNEL void append_part(std::string& to, unsigned value) { to.append(std::to_string(value)); }
GRAFT_KERNEL void append_part(std::string& to, long value) { to.append(std::to_string(value)); }
GRAFT_KERNEL void append_part(std::string& to, unsigned long value) {
  to.append(std::to_string(value));
}
GRAFT_KERNEL void append_part(std::string& to, long long value) {
  to.append(std::to_string(value));
}
GRAFT_KERNEL void append_part(std::string& to, unsigned long long value) {
  to.append(std::to_string(value));
}
GRAFT_KERNEL void append_part(std::string& to, double value) { to.append(std::to_string(value)); }

}  // namespace graft::inline v0_1::detail
