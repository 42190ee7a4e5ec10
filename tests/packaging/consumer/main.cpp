#include <cstdio>

#include "graft/graft.hpp"

int main() {
  graft::TorchGenerator generator(0);
  float value = 0.0f;
  graft::kaiming_uniform(generator, &value, 1, 4, 0.0);
  std::printf("graft %s: %.6f\n", GRAFT_VERSION_STRING, static_cast<double>(value));
  return value > -0.0092f && value < -0.0091f ? 0 : 1;
}
