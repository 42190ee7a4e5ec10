#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "graft/base/types.hpp"

namespace graft {

/// What one forward pass is about, for the adapters that depend on more than the values that flow
/// through their site. Set on the tape by the model (`tape.set_context`), read by
/// `tape.context<ForwardContext>()`.
struct ForwardContext {
  Index batch = 1;                        ///< rows of the batch
  Index seq_len = 1;                      ///< tokens a row, padding included
  std::vector<std::int32_t> ids;          ///< [batch · seq_len], empty if the input is no text
  std::vector<unsigned char> token_mask;  ///< [batch · seq_len], 1 = a real token; empty: all are
  std::vector<std::int64_t> task_ids;     ///< [batch], for methods that route by task
  std::vector<std::string> row_adapters;  ///< [batch], the adapter of each row ("__base__": none);
                                          ///< empty: the active ones
};

}  // namespace graft
