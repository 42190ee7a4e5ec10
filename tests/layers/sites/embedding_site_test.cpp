#include "graft/layers/sites/embedding_site.hpp"

#include <catch2/catch.hpp>

#include "graft/autograd/ops/elementwise.hpp"

using graft::Tape;
using graft::Tensor;
using graft::Var;

namespace {

using Ids = std::vector<std::int32_t>;

/// factor · (row below + 1).
struct Scaled final : graft::EmbeddingAdapterInterface<float> {
  explicit Scaled(float f) : factor(f) {}
  Var apply(const graft::BasicEmbeddingView<float>& base, Tape& tape,
            std::span<const std::int32_t> ids) const override {
    return scale(add_scalar(base(tape, ids), 1), factor);
  }
  float factor;
};
graft::EmbeddingSite site() {
  graft::EmbeddingSite site("embed", graft::EmbeddingTable(Tensor::from({0, 1, 2, 3}, {4, 1})));
  site.adapters() = {{"ten", std::make_shared<Scaled>(10.0F)},
                     {"minus", std::make_shared<Scaled>(-1.0F)}};
  return site;
}
std::vector<float> values(const Var& x) { return {x.value().begin(), x.value().end()}; }

}  // namespace

TEST_CASE("Adapters of an embedding wrap those before them") {
  auto embedding = site();
  Tape tape({.gradients = false});
  CHECK(values(embedding(tape, Ids{3, 0})) == std::vector<float>{3, 0});
  embedding.activate({"ten", "minus"});  // −(10 (x + 1) + 1)
  CHECK(values(embedding(tape, Ids{3, 0})) == std::vector<float>{-41, -11});
  auto context = std::make_shared<graft::ForwardContext>();
  context->only = "minus";
  tape.set_context(context);
  CHECK(values(embedding(tape, Ids{3, 0})) == std::vector<float>{-4, -1});
  CHECK_THROWS_AS(embedding(tape, Ids{4}), graft::ValueError);
}

TEST_CASE("Each row of a batch may look its tokens up with its own adapter") {
  const auto embedding = site();
  auto context = std::make_shared<graft::ForwardContext>();
  context->batch = 3;
  context->row_adapters = {"minus", "ten", "minus"};
  Tape tape({.gradients = false});
  tape.set_context(context);
  const auto y = embedding(tape, Ids{3, 0, 1, 1, 2, 3});
  CHECK(y.shape() == graft::Shape{6, 1});
  CHECK(values(y) == std::vector<float>{-4, -1, 20, 20, -3, -4});
}
