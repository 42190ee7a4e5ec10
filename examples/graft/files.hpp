#pragma once

#include <string>
#include <vector>

#include "graft/io/gguf.hpp"
#include "graft/models/load.hpp"

namespace cli {

/// Rows of the queries' and keys' weights, whose halves GGUF files of this architecture keep
/// interleaved.
inline bool interleaved_rows(const std::string& architecture, const std::string& name) {
  return architecture == "llama" && (name.find("self_attn.q_proj") != std::string::npos ||
                                     name.find("self_attn.k_proj") != std::string::npos);
}

/// Row order between Hugging Face's layout and that of GGUF files: `to_gguf` or back.
inline std::vector<float> reorder_rows(const std::vector<float>& values, graft::Index rows,
                                       graft::Index head, bool to_gguf) {
  std::vector<float> result(values.size());
  const auto width = static_cast<graft::Index>(values.size()) / rows;
  for (graft::Index r = 0; r < rows; ++r) {
    const graft::Index in_head = r % head, half = head / 2;
    const graft::Index file_row = r - in_head + 2 * (in_head % half) + in_head / half;
    const graft::Index from = to_gguf ? r : file_row, to = to_gguf ? file_row : r;
    std::copy_n(values.begin() + from * width, width, result.begin() + to * width);
  }
  return result;
}

}  // namespace cli
