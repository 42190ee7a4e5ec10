// Expected: LinearAdapter
#include "graft/adapters/adapted.hpp"

struct Adapter {
  using Scalar = float;
  template <graft::Linear L>
  graft::Tensor apply(const L&, const graft::Var& x) const {
    return x.value();
  }
  std::vector<graft::AdapterTensor<float>> tensors() const { return {}; }
};

auto make(const graft::DenseLinear& base) { return graft::Adapted(base, Adapter()); }
