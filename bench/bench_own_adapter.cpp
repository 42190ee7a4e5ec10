// An adapter type of one's own under the same measurement: what its authors write is the class.
#include "adapter_overhead.hpp"

namespace {

/// y = g ⊙ base(x), g: [out].
class Gain {
 public:
  using Scalar = float;
  explicit Gain(const graft::DenseLinear& base)
      : gain_(graft::Tensor::full({base.out_features()}, 1)) {}
  template <graft::Linear L>
  graft::Var apply(const L& base, const graft::Var& x) const {
    return mul(linear(base, x), x.tape().parameter(gain_));
  }
  std::vector<graft::AdapterTensor<float>> tensors() const {
    return {{.name = "gain", .parameter = gain_, .index = {}, .file_shape = {}}};
  }

 private:
  graft::Parameter gain_;
};

}  // namespace

int main(int argc, char** argv) {
  return graft::bench::adapter_overhead(argc, argv, "gain",
                                        [](const graft::DenseLinear& base) { return Gain(base); });
}
