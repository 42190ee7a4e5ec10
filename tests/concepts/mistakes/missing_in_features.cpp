// Expected: FrozenLinear
#include "graft/adapters/low_rank/lora.hpp"

struct Layer {
  graft::Index out_features() const { return 3; }
  void forward(graft::MatrixView<const float>, graft::MatrixView<float>) const {}
  void backward_input(graft::MatrixView<const float>, graft::MatrixView<float>) const {}
};

struct Network {
  graft::Adapted<Layer, graft::LoRA> first;
};
