// The models, compiled once for all subcommands.
#include "common.hpp"
#include "graft/models/load.hpp"

namespace cli {

std::unique_ptr<graft::models::Model> load_model(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path))
    throw graft::IoError(path.string() + ": no such file or folder");
  return graft::models::load<float>(path);
}

}  // namespace cli
