// Expected: floating_point
#include "graft/adapters/adapted.hpp"

graft::BasicParameter<int> parameter;
