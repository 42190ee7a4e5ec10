// An adapter of one's own: a class with `apply` and `tensors`, and everything else follows.
//
// It multiplies each input and each output by a trained factor: y = r ⊙ (W (l ⊙ x)) with r and l
// of ones at the start. Trained: in + out.
#include <cmath>
#include <cstdio>
#include <vector>

#include "graft/adapters/adapted.hpp"
#include "graft/adapters/low_rank/lora.hpp"
#include "graft/autograd/gradient_check.hpp"
#include "graft/autograd/ops/loss.hpp"
#include "graft/optim/adamw.hpp"

//! [class]
template <class T>
class TwoScales {
 public:
  using Scalar = T;

  template <graft::Linear L>
  explicit TwoScales(const L& base)
      : left_(graft::BasicTensor<T>::ones({base.in_features()})),
        right_(graft::BasicTensor<T>::ones({base.out_features()})) {}

  // For any base: a frozen layer, another adapter, a quantised layer.
  template <graft::Linear L>
  graft::BasicVar<T> apply(const L& base, const graft::BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto scaled = graft::mul(x, tape.parameter(left_));
    return graft::mul(graft::linear(base, scaled), tape.parameter(right_));
  }
  // The registry: names in files, counting, optimiser groups.
  std::vector<graft::AdapterTensor<T>> tensors() const {
    return {{.name = "left", .parameter = left_, .index = {}, .file_shape = {}, .group = "slow"},
            {.name = "right", .parameter = right_, .index = {}, .file_shape = {}, .group = "fast"}};
  }

 private:
  graft::BasicParameter<T> left_, right_;
};
//! [class]

template <class T>
graft::BasicTensor<T> normal(graft::TorchGenerator& rng, const graft::Shape& shape) {
  auto t = graft::BasicTensor<T>::empty(shape);
  rng.normal(t.data(), t.size());
  return t;
}

int main() {
  graft::TorchGenerator rng(11);

  // First the gradients, in double precision, against differences.
  //! [check]
  const graft::BasicDenseLinear<double> exact(normal<double>(rng, {5, 7}));
  const graft::Adapted checked(exact, TwoScales<double>(exact));
  const auto probe = normal<double>(rng, {4, 7});
  const auto check = graft::gradient_check(
      [&](auto& tape) { return graft::mean(graft::square(checked(tape.constant(probe)))); },
      checked.parameters());
  //! [check]
  std::printf("gradient check: %.1e\n", check.relative_error);

  // Then training: the teacher is the base with its outputs scaled by 1.5 and 0.5 in turn.
  const graft::Index in = 16, out = 12;
  const graft::DenseLinear base(normal<float>(rng, {out, in}));
  auto factors = graft::Tensor::empty({out});
  for (graft::Index o = 0; o < out; ++o) factors[o] = o % 2 == 0 ? 1.5F : 0.5F;
  graft::Adapted layer(base, TwoScales<float>(base));
  std::vector<graft::ParameterGroup> groups(2);
  for (const auto& t : layer.tensors())
    groups[t.group == "fast" ? 1 : 0].parameters.push_back(t.parameter);
  groups[1].learning_rate_ratio = 4;
  graft::AdamW optimizer(groups, {.learning_rate = 1e-2, .weight_decay = 0});
  float loss_value = 0;
  for (int step = 0; step < 300; ++step) {
    graft::Tape tape;
    const auto x = tape.constant(normal<float>(rng, {32, in}));
    const auto target = graft::mul(graft::linear(base, x), tape.constant(factors));
    const auto loss = graft::mse(layer(x), target);
    tape.backward(loss);
    optimizer.step();
    optimizer.zero_grad();
    loss_value = loss.item();
  }

  // Adapters chain, and merge.
  const graft::Adapted both(layer, graft::LoRA({.rank = 2, .alpha = 2}, layer));
  const auto merged = layer.merge();
  std::printf("loss %.1e, trained %td, with LoRA on top %td, merged weight / weight %.3f %.3f\n",
              static_cast<double>(loss_value), graft::trainable_elements(layer.tensors()),
              graft::trainable_elements(both.tensors()),
              static_cast<double>(merged.weight()(0, 3) / base.weight()(0, 3)),
              static_cast<double>(merged.weight()(1, 3) / base.weight()(1, 3)));
  return check.relative_error < 1e-6 && loss_value < 1e-3F ? 0 : 1;
}
