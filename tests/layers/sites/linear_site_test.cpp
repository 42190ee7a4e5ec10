#include "graft/layers/sites/linear_site.hpp"

#include <catch2/catch.hpp>

#include "layers/sites/support.hpp"

using graft::Shape;
using graft::Tape;
using graft::Tensor;
using namespace site_tests;

TEST_CASE("A trained bias takes the place of the frozen one") {
  graft::LinearSite site("proj",
                         graft::DenseLinear(Tensor::identity(2), Tensor::from({1, 2}, {2})));
  CHECK(run(site, {0, 0}) == std::vector<float>{1, 2});
  site.biases.active = graft::Parameter(Tensor::from({5, 7}, {2}));
  CHECK(run(site, {1, 1}) == std::vector<float>{6, 8});
  Tape tape;
  tape.backward(sum(site(tape.constant(Tensor::from({0, 0, 0, 0}, {2, 2})))));
  CHECK(site.biases.active.grad()[0] == 2);
}

TEST_CASE("A site is adapted where some row runs more than the frozen layer") {
  auto site = identity_site(2);
  const auto adapted = [&](std::shared_ptr<graft::ForwardContext> context = nullptr) {
    Tape tape;
    tape.set_context(context);
    return site.adapted(tape);
  };
  const auto only = [](const char* name) {
    auto context = std::make_shared<graft::ForwardContext>();
    context->only = name;
    return context;
  };
  CHECK_FALSE(adapted());
  attach(site, "a", Affine{2, 1});
  CHECK_FALSE(adapted());
  CHECK(adapted(only("a")));
  site.activate({"a"});
  CHECK(adapted());
  CHECK_FALSE(adapted(only("b")));
  site.activate({});
  site.biases.list.push_back({"b", graft::Parameter(Tensor::from({5, 7}, {2}))});
  CHECK(adapted(only("b")));
  site.biases.activate({"b"});
  CHECK(adapted());
  auto rows = std::make_shared<graft::ForwardContext>();
  rows->row_adapters = {"__base__"};
  CHECK(adapted(rows));
}

TEST_CASE("Files hold the weight of a convolution with its kernel, of a matrix as it is") {
  const graft::ConvGeometry plain, image{.kernel = {3, 5}, .in_channels = 8, .groups = 2},
      text{.kernel = {4}, .in_channels = 6};
  CHECK(plain.kernel_elements() == 1);
  CHECK(plain.weight_shape(7) == Shape{});
  CHECK(plain.weight_shape(7, 3) == Shape{});
  CHECK(plain.pointwise_shape(7, 3) == Shape{});
  CHECK(image.kernel_elements() == 15);
  CHECK(image.weight_shape(7) == Shape{7, 4, 3, 5});
  CHECK(image.weight_shape(7, 8) == Shape{7, 8, 3, 5});
  CHECK(image.pointwise_shape(7, 3) == Shape{7, 3, 1, 1});
  CHECK(text.weight_shape(7) == Shape{7, 6, 4});
  CHECK(text.pointwise_shape(7, 3) == Shape{7, 3, 1});
}
