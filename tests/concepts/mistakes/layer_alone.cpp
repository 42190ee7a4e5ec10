// Expected: in_features
#include "graft/layers/concepts.hpp"

struct Layer {
  graft::Index out_features() const { return 3; }
  void forward(graft::MatrixView<const float>, graft::MatrixView<float>) const {}
  void backward_input(graft::MatrixView<const float>, graft::MatrixView<float>) const {}
};

static_assert(graft::FrozenLinear<Layer>);
