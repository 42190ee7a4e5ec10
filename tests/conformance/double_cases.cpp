// Layer cases once more, in double precision.
#include "layer_run.hpp"

namespace conformance {

void run_layer_in_double(Checker& check, const Case& c) { run_layer<double>(check, c); }

}  // namespace conformance
