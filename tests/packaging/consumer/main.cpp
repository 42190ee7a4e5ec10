#include <cstdio>

#include "graft/graft.hpp"
#ifdef GRAFT_FILES_COMPILED
#include "graft/text/load_tokenizer.hpp"
#endif

int main() {
  graft::TorchGenerator generator(0);
  float value = 0.0f;
  graft::kaiming_uniform(generator, &value, 1, 4, 0.0);
#ifdef GRAFT_FILES_COMPILED
  try {
    graft::text::load_tokenizer("none.model");
    return 1;
  } catch (const graft::IoError&) {
  }
#endif
  std::printf("graft %s: %.6f\n", GRAFT_VERSION_STRING, static_cast<double>(value));
  return value > -0.0092f && value < -0.0091f ? 0 : 1;
}
