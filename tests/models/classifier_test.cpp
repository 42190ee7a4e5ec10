#include "graft/models/classifier.hpp"

#include <unistd.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>
#include <span>
#include <string>
#include <tuple>
#include <vector>

using graft::Index;
using graft::Tensor;
using graft::models::HeadConfig;
using graft::models::SafetensorsWeights;
using graft::models::WeightsWithHead;

namespace {

/// A file with a layer "inside" [3, 2] and a head "classifier" [2, 3].
class File {
 public:
  File() {
    path_ = std::filesystem::temp_directory_path() /
            ("graft-classifier-test-" + std::to_string(::getpid()) + ".safetensors");
    std::vector<graft::io::TensorToWrite> list;
    for (const auto& [name, rows, cols] : {std::tuple{"inside", 3, 2}, {"classifier", 2, 3}}) {
      graft::io::TensorToWrite item;
      item.name = std::string(name) + ".weight";
      item.dtype = graft::io::DType::f32;
      item.shape = {rows, cols};
      item.data = std::as_bytes(std::span(values_));
      list.push_back(item);
    }
    graft::io::write_safetensors(path_, list);
  }
  ~File() { std::filesystem::remove(path_); }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  std::vector<float> values_{1, 2, 3, 4, 5, 6};
};

}  // namespace

TEST_CASE("A head that the file has for as many classes is taken from it") {
  const File file;
  const SafetensorsWeights<float> weights(file.path());
  const WeightsWithHead<float> with(weights, {"classifier"}, HeadConfig{});
  CHECK(with.linear("classifier", 2, 3).dense_weight()(1, 2) == 6);
  CHECK(with.linear("inside", 3, 2).dense_weight()(1, 0) == 3);
  CHECK(with.drawn().empty());
}

TEST_CASE("A head of another size, or none, is drawn from its seed; nothing else is") {
  const File file;
  const SafetensorsWeights<float> weights(file.path());
  HeadConfig head;
  head.seed = 7;
  head.deviation = 0.5;
  const auto draw = [&](std::uint64_t seed) {
    head.seed = seed;
    const WeightsWithHead<float> with(weights, {"classifier", "pooler"}, head);
    const auto pooler = with.linear("pooler", 40, 50);
    const auto layer = with.linear("classifier", 5, 3);
    CHECK(with.drawn() == std::vector<std::string>{"pooler", "classifier"});
    CHECK(layer.dense_weight().rows() == 5);
    CHECK(layer.bias()[4] == 0);
    return pooler.dense_weight();
  };
  const auto one = draw(7), same = draw(7), other = draw(8);
  double squares = 0;
  bool differs = false;
  for (Index i = 0; i < one.size(); ++i) {
    CHECK(one[i] == same[i]);
    differs = differs || one[i] != other[i];
    squares += static_cast<double>(one[i]) * static_cast<double>(one[i]);
  }
  CHECK(differs);
  CHECK(std::sqrt(squares / 2000) == Approx(0.5).epsilon(0.1));
  const WeightsWithHead<float> with(weights, {"classifier"}, head);
  CHECK_THROWS_WITH(with.linear("encoder", 2, 2), Catch::Contains("'encoder.weight' is missing"));
  CHECK_THROWS_WITH(with.linear("inside", 2, 2), Catch::Contains("expected"));
}

TEST_CASE(
    "A norm of a head that the file lacks begins as ones and zeros, one of its body is missed") {
  const File file;
  const SafetensorsWeights<float> weights(file.path());
  const WeightsWithHead<float> with(weights, {"norm"}, HeadConfig{});
  CHECK(with.tensor("norm.weight", {3})[2] == 1);
  CHECK(with.tensor("norm.bias", {3})[2] == 0);
  CHECK(with.drawn() == std::vector<std::string>{"norm"});
  CHECK_THROWS_WITH(with.tensor("other.weight", {3}), Catch::Contains("'other.weight' is missing"));
}

TEST_CASE("What a classifier learns is told by its problem, else by classes and targets") {
  using graft::models::Problem;
  graft::Tape tape;
  const auto logits = tape.constant(Tensor::from({0.5F, -1, 2, 0.25F}, {2, 2}));
  graft::models::Batch labelled, several;
  labelled.labels = {1, 0};
  several.targets = Tensor::from({1, 0, 0, 1}, {2, 2});
  const auto loss = [&](const auto& batch, Problem problem) {
    return classification_loss(logits, batch, problem).item();
  };
  const float mse = (0.25F + 1 + 4 + 0.5625F) / 4;
  CHECK(loss(several, Problem::regression) == Approx(mse));
  const auto bce = binary_cross_entropy(logits, several.targets).item();
  CHECK(loss(several, Problem::multi_label) == bce);
  CHECK(loss(several, Problem::automatic) == bce);
  CHECK(loss(labelled, Problem::automatic) == loss(labelled, Problem::single_label));
  CHECK_THROWS_WITH(loss(labelled, Problem::multi_label),
                    Catch::Contains("multi-label loss: 2 targets for 4 logits"));

  const auto one = tape.constant(Tensor::from({0.5F, -1}, {2, 1}));
  CHECK(classification_loss(one, labelled).item() == Approx((0.25F + 1) / 2));
  CHECK_THROWS_AS(classification_loss(one, graft::models::Batch{}), graft::ShapeError);
}
