// The models, compiled once for all subcommands.
#include "files.hpp"
#include "graft/models/load.hpp"
#include "session.hpp"

template class graft::models::BasicCausalModel<float>;

namespace cli {

std::unique_ptr<graft::models::Model> load_model(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path))
    throw graft::IoError(path.string() + ": no such file or folder");
  return graft::models::load<float>(path);
}

std::string gguf_name(const std::string& architecture, const std::string& name) {
  return graft::models::detail::gguf_name(name, architecture.starts_with("gemma3"));
}

const graft::models::LlamaConfig* llama_config(const graft::models::Model& model) {
  const auto* llama = dynamic_cast<const graft::models::Llama*>(&model);
  return llama == nullptr ? nullptr : &llama->config();
}

}  // namespace cli
