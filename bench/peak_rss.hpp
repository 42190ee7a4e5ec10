#pragma once

#include <fstream>
#include <string>

namespace graft::bench {

/// Highest resident memory of this process so far, in MiB; 0 if the system does not say.
inline double peak_rss_mib() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;)
    if (word == "VmHWM:") {
      double kib = 0;
      status >> kib;
      return kib / 1024;
    }
  return 0;
}

}  // namespace graft::bench
