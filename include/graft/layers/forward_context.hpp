#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "graft/base/types.hpp"
#include "graft/config.hpp"

namespace graft::inline v0_1 {

/// What one forward pass is about, for the adapters that depend on more than the values that flow
/// through their site. Set on the tape by the model (`tape.set_context`), read by
/// `tape.context<ForwardContext>()`.
struct ForwardContext {
  Index batch = 1;                        ///< rows of the batch
  Index seq_len = 1;                      ///< tokens a row, padding included
  std::vector<std::int32_t> ids;          ///< [batch · seq_len], empty if the input is no text
  std::vector<std::int32_t> past_ids;     ///< [batch · past], tokens that a cache holds already
  std::vector<unsigned char> token_mask;  ///< [batch · seq_len], 1 = a real token; empty: all are
  std::vector<std::int64_t> task_ids;     ///< [batch], for methods that route by task
  std::vector<std::int64_t> labels;       ///< [batch · seq_len], the tokens to be predicted (not
                                          ///< shifted; -100: none), where a loss is computed
  std::vector<std::int64_t> modality;  ///< [batch · seq_len], of each token, -1: none; empty: all
                                       ///< have the first
  /// [batch], tokens of each row that are its prompt, padding not counted; empty: all are.
  std::vector<Index> prompt_lengths;
  std::vector<unsigned char> instruction_mask;  ///< [batch · seq_len], 1 = a token of the
                                                ///< instruction; empty: not told apart
  std::vector<float> visual;  ///< [batch · tokens · width], tokens of an image encoder; empty: none
  Index visual_width = 0;
  std::vector<std::string> row_adapters;  ///< [batch], the adapter of each row ("__base__": none);
                                          ///< empty: the active ones

  std::optional<std::string> only;  ///< all rows run this adapter alone, whatever is active

  /// The same for some rows of the batch, which run one adapter.
  ForwardContext of_rows(const std::vector<Index>& rows, std::string adapter) const;
};

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/layers/impl/forward_context_impl.hpp"
#endif
