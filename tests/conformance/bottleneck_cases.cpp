// Cases of bottleneck adapters that the general runners do not cover.
#include "handlers.hpp"
