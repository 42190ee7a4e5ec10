// Cases of methods that Hugging Face PEFT lacks.
#include "support.hpp"

namespace conformance {

Result run_method_case(const Case& c) { throw Unsupported{c.json.value("kind", "")}; }

}  // namespace conformance
