#include "graft/models/weights.hpp"

#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace fs = std::filesystem;
using graft::models::SafetensorsWeights;

namespace {

/// A file with a table, a copy of it, and others.
class WeightsFile {
 public:
  WeightsFile() {
    std::vector<graft::io::TensorToWrite> list;
    const auto put = [&](const char* name, std::vector<graft::Index> shape,
                         const std::vector<float>& values) {
      list.push_back(
          {name, graft::io::DType::f32, std::move(shape), std::as_bytes(std::span(values))});
    };
    put("words.weight", {2, 2}, table_);
    put("copy.weight", {2, 2}, table_);
    put("other.weight", {2, 2}, other_);
    put("turned.weight", {1, 4}, table_);
    list.push_back(
        {"half.weight", graft::io::DType::bf16, {2, 2}, std::as_bytes(std::span(half_))});
    put("bert.embeddings.LayerNorm.gamma", {2}, gamma_);
    put("bert.embeddings.LayerNorm.beta", {2}, beta_);
    graft::io::write_safetensors(path_, list);
  }
  WeightsFile(const WeightsFile&) = delete;
  WeightsFile& operator=(const WeightsFile&) = delete;
  ~WeightsFile() { fs::remove(path_); }
  SafetensorsWeights<float> open(std::vector<std::string> prefixes = {}) const {
    return SafetensorsWeights<float>(path_, std::move(prefixes));
  }

 private:
  std::vector<float> table_ = {1, 2, 3, 4}, other_ = {1, 2, 3, 5}, gamma_ = {6, 7}, beta_ = {8, 9};
  std::vector<std::uint16_t> half_ = {0x3F80, 0x4000, 0x4040, 0x4080};  // 1, 2, 3, 4
  fs::path path_ =
      fs::temp_directory_path() / graft::concat("graft-weights-", ::getpid(), ".safetensors");
};

}  // namespace

TEST_CASE("Weight and bias of a LayerNorm may be called gamma and beta in the file") {
  const WeightsFile file;
  const auto weights = file.open({"bert."});
  for (const std::string path : {"bert.embeddings.LayerNorm", "embeddings.LayerNorm"}) {
    REQUIRE(weights.has(path + ".weight"));
    CHECK(weights.tensor(path + ".weight", {2})[1] == 7);
    CHECK(weights.tensor(path + ".bias", {2})[1] == 9);
  }
  CHECK_FALSE(weights.has("embeddings.layer_norm.weight"));
}

TEST_CASE("A head is tied where the file has none of other values than the embedding") {
  const WeightsFile file;
  const auto weights = file.open();
  CHECK(weights.ties(true, "lm_head", "words"));
  CHECK(weights.ties(true, "copy", "words"));
  CHECK(weights.ties(true, "half", "words"));
  CHECK_FALSE(weights.ties(true, "half", "other"));
  CHECK_FALSE(weights.ties(true, "other", "words"));
  CHECK_FALSE(weights.ties(true, "turned", "words"));
  CHECK_FALSE(weights.ties(false, "lm_head", "words"));
  CHECK_FALSE(weights.ties(false, "copy", "words"));
}

TEST_CASE("A table that the file lacks is that of the first layer tied to it") {
  const WeightsFile file;
  const auto weights = file.open();
  CHECK(weights.stored_table("words", {"other"}) == "words");
  CHECK(weights.stored_table("shared", {"nothing", "copy", "other"}) == "copy");
  CHECK(weights.stored_table("shared", {"nothing"}) == "shared");
}
