#pragma once

#include <string_view>

#include "graft/base/error.hpp"

namespace graft::inline v0_1::text::jinja::detail {

[[noreturn]] inline void fail(int line, std::string_view reason) {
  throw ValueError(concat("chat template, line ", line, ": ", reason));
}

}  // namespace graft::inline v0_1::text::jinja::detail
