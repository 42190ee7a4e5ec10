#pragma once

#include <memory>
#include <string>

#include "graft/base/types.hpp"
#include "graft/fwd.hpp"

namespace cli {

/// Shows how far a run is: a bar that changes on a terminal, plain lines elsewhere.
class Progress {
 public:
  Progress(graft::Index steps, graft::Index done);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void step(const graft::StepReport& report);
  /// A line of its own.
  void line(const std::string& text);
  void finish();

 private:
  struct Bar;
  graft::Index steps_;
  graft::Index first_;
  std::unique_ptr<Bar> bar_;
};

}  // namespace cli
