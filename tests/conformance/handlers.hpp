#pragma once

#include <functional>
#include <string>
#include <vector>

#include "support.hpp"

/// Cases that need more than the general runners: one line a handler, in the file of its family.
///
///     const Handler trace({.kind = "procedure", .peft_type = "ADALORA"}, run_trace);
namespace conformance {

/// Which cases a handler takes; empty fields mean any.
struct Takes {
  std::string kind = {};       ///< of case.json
  std::string peft_type = {};  ///< of adapter_config.json, or of case.json where there is none
  std::string method = {};     ///< of case.json
  std::string name = {};       ///< start of the name in case.json
  std::string has = {};        ///< a tensor of case.safetensors or a key of case.json
};

class Handler {
 public:
  Handler(Takes takes, std::function<void(Checker&, const Case&)> run);

  /// Runs the handler that takes the case, the last one that was defined; false if there is none.
  static bool run(const Case& c, Checker& check);
};

/// peft_type of a case.
std::string peft_type_of(const Case& c);

}  // namespace conformance
