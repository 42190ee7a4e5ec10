#pragma once

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "graft/io/gguf.hpp"
#include "graft/models/llama.hpp"

/// What merge and convert know about file formats beyond reading and writing them.
namespace cli {

/// True for weights whose rows GGUF files of the architecture keep in another order: of queries and
/// keys, the two halves of each head interleaved.
inline bool interleaved_rows(const std::string& architecture, const std::string& name) {
  return architecture == "llama" && (name.find("self_attn.q_proj") != std::string::npos ||
                                     name.find("self_attn.k_proj") != std::string::npos);
}

/// Rows in the order of GGUF files (`to_gguf`) from that of Hugging Face, or back.
/// @param head  rows of a head
inline std::vector<float> reorder_rows(const std::vector<float>& values, graft::Index rows,
                                       graft::Index head, bool to_gguf) {
  std::vector<float> result(values.size());
  const auto width = std::ssize(values) / rows;
  for (graft::Index r = 0; r < rows; ++r) {
    const graft::Index in_head = r % head, half = head / 2;
    const graft::Index file_row = r - in_head + 2 * (in_head % half) + in_head / half;
    const graft::Index from = to_gguf ? r : file_row, to = to_gguf ? file_row : r;
    std::copy_n(values.begin() + from * width, width, result.begin() + to * width);
  }
  return result;
}

/// Name of a tensor in GGUF files from that of Hugging Face; the same if it has none.
std::string gguf_name(const std::string& architecture, const std::string& name);

/// Sizes of a model of the LLaMA family, null for others.
const graft::models::LlamaConfig* llama_config(const graft::models::Model& model);

/// Writes the tokenizer of a GGUF file as tokenizer.json and tokenizer_config.json, where its kind
/// has such a form (byte-level BPE); false where not.
bool write_tokenizer(const graft::io::GgufMetadata& metadata, const std::string& source,
                     const std::filesystem::path& folder);

}  // namespace cli
