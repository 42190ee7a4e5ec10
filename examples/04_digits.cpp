// A small network of one's own, pre-trained on the digits 0 to 4 and adapted to 5 to 9 with LoRA.
//
// Arguments: the data file. See data/README.md for its source and licence.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <vector>

#include "graft/adapters/low_rank/lora.hpp"
#include "graft/autograd/ops/loss.hpp"
#include "graft/optim/adamw.hpp"

namespace {

using graft::Index;
constexpr Index kPixels = 64, kHidden = 48, kClasses = 5;

/// Images [rows, 64] in [0, 1] and labels 0 to 4.
struct Digits {
  std::vector<float> pixels;
  std::vector<std::int64_t> labels;

  void add(const std::vector<float>& image, int label) {
    for (const float p : image) pixels.push_back(p / 16);
    labels.push_back(label);
  }
  Index rows() const { return static_cast<Index>(labels.size()); }
  graft::Var images(graft::Tape& tape) const {
    return tape.constant(graft::Tensor::from(pixels, {rows(), kPixels}));
  }
};

/// Trains with all rows at each step; `network` maps images to logits.
template <class Network>
void train(const Network& network, const Digits& data, std::vector<graft::Parameter> parameters,
           int steps) {
  graft::AdamW optimizer(std::move(parameters), {.learning_rate = 1e-2});
  for (int step = 0; step < steps; ++step) {
    graft::Tape tape;
    tape.backward(graft::cross_entropy(network(data.images(tape)), data.labels));
    optimizer.step();
    optimizer.zero_grad();
  }
}

template <class Network>
double accuracy(const Network& network, const Digits& data) {
  graft::Tape tape({.gradients = false, .training = false});
  const auto logits = network(data.images(tape)).value();
  Index right = 0;
  for (Index i = 0; i < data.rows(); ++i) {
    const float* row = logits.data() + i * kClasses;
    right +=
        std::max_element(row, row + kClasses) - row == data.labels[static_cast<std::size_t>(i)];
  }
  return static_cast<double>(right) / static_cast<double>(data.rows());
}

}  // namespace

int main(int argc, char** argv) {
  std::ifstream file(argc > 1 ? argv[1] : "examples/data/digits.csv");
  Digits low, high, low_test, high_test;
  std::vector<float> image(kPixels);
  int label = 0;
  char comma = 0;
  for (int line = 0; file >> image[0]; ++line) {
    for (std::size_t i = 1; i < kPixels; ++i) file >> comma >> image[i];
    file >> comma >> label;
    auto& part = label < 5 ? (line % 4 == 3 ? low_test : low) : (line % 4 == 3 ? high_test : high);
    part.add(image, label % 5);
  }
  if (low.rows() == 0 || high.rows() == 0) {
    std::fprintf(stderr, "usage: %s examples/data/digits.csv (lines of 64 pixels and a label)\n",
                 argv[0]);
    return 2;
  }

  // Pre-training: all weights are parameters.
  graft::TorchGenerator rng(1);
  const auto weight = [&](Index out, Index in) {
    auto w = graft::Tensor::empty({out, in});
    rng.normal(w.data(), w.size(), 0, 1 / std::sqrt(static_cast<double>(in)));
    return graft::Parameter(w);
  };
  const auto w1 = weight(kHidden, kPixels), w2 = weight(kClasses, kHidden);
  const auto whole = [&](const graft::Var& x) {
    auto& tape = x.tape();
    return graft::affine(graft::relu(graft::affine(x, tape.parameter(w1))), tape.parameter(w2));
  };
  train(whole, low, {w1, w2}, 80);
  std::printf("pre-trained: %.1f %% of 0 to 4\n", 100 * accuracy(whole, low_test));

  // Adaptation: the same weights, frozen, with LoRA beside them.
  const graft::DenseLinear first(w1.value()), second(w2.value());
  graft::Adapted a1(first, graft::LoRA({.rank = 4, .alpha = 8}, first, 1));
  graft::Adapted a2(second, graft::LoRA({.rank = 4, .alpha = 8}, second, 2));
  const auto adapted = [&](const graft::Var& x) { return a2(graft::relu(a1(x))); };
  auto parameters = a1.parameters();
  for (const auto& p : a2.parameters()) parameters.push_back(p);
  Index trained = 0;
  for (const auto& p : parameters) trained += p.size();

  const double before = accuracy(adapted, high_test);
  train(adapted, high, parameters, 120);
  const double after = accuracy(adapted, high_test);
  std::printf("5 to 9: %.1f %% before, %.1f %% after, %td of %td parameters trained\n",
              100 * before, 100 * after, trained, w1.size() + w2.size());
  a1.set_enabled(false);
  a2.set_enabled(false);
  std::printf("adapters off: still %.1f %% of 0 to 4\n", 100 * accuracy(adapted, low_test));
  return after > 0.85 && after > before + 0.3 ? 0 : 1;
}
