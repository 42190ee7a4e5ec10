#include "graft/layers/conv.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"

using graft::BasicTape;
using graft::BasicTensor;
using graft::BasicVar;
using graft::ConvOptions;
using graft::Index;
using graft::Shape;

namespace {

struct Geometry {
  Index channels = 1, out = 1, groups = 1;
  std::vector<Index> size, kernel, stride, padding, dilation;
};

/// A convolution written out: every output place sums over its group's channels and the kernel.
BasicTensor<double> reference(const BasicTensor<double>& x, const BasicTensor<double>& weight,
                              const BasicTensor<double>& bias, const Geometry& g) {
  const auto axes = g.size.size();
  std::vector<Index> places;
  Index count = 1, taps = 1, plane = 1;
  for (std::size_t i = 0; i < axes; ++i) {
    places.push_back(
        (g.size[i] + 2 * g.padding[i] - g.dilation[i] * (g.kernel[i] - 1) - 1) / g.stride[i] + 1);
    count *= places[i];
    taps *= g.kernel[i];
    plane *= g.size[i];
  }
  const auto digits = [&](Index number, const std::vector<Index>& base) {
    std::vector<Index> list(axes);
    for (std::size_t i = axes; i-- > 0;) {
      list[i] = number % base[i];
      number /= base[i];
    }
    return list;
  };
  Shape shape{x.dim(0), g.out};
  for (Index p : places) shape.append(p);
  auto y = BasicTensor<double>::zeros(shape);
  const Index width = g.channels / g.groups;
  for (Index b = 0; b < x.dim(0); ++b)
    for (Index o = 0; o < g.out; ++o)
      for (Index p = 0; p < count; ++p) {
        double sum = bias[o];
        const auto place = digits(p, places);
        for (Index c = 0; c < width; ++c)
          for (Index t = 0; t < taps; ++t) {
            const auto tap = digits(t, g.kernel);
            Index from = 0;
            bool inside = true;
            for (std::size_t i = 0; i < axes; ++i) {
              const Index at = place[i] * g.stride[i] - g.padding[i] + tap[i] * g.dilation[i];
              inside = inside && at >= 0 && at < g.size[i];
              from = from * g.size[i] + at;
            }
            if (!inside) continue;
            const Index channel = o / (g.out / g.groups) * width + c;
            sum +=
                weight[(o * width + c) * taps + t] * x[(b * g.channels + channel) * plane + from];
          }
        y[(b * g.out + o) * count + p] = sum;
      }
  return y;
}

struct Layer {
  BasicTensor<double> weight, bias, x;
  graft::BasicLinearSite<double> site;
  ConvOptions options;
};

Layer make(const Geometry& g, unsigned seed) {
  Layer layer;
  Shape weight{g.out, g.channels / g.groups}, x{2, g.channels};
  for (std::size_t i = 0; i < g.size.size(); ++i) {
    weight.append(g.kernel[i]);
    x.append(g.size[i]);
  }
  layer.weight = checks::random_tensor<double>(weight, seed);
  layer.bias = checks::random_tensor<double>({g.out}, seed + 1);
  layer.x = checks::random_tensor<double>(x, seed + 2);
  layer.site = {"conv", graft::BasicDenseLinear<double>(
                            graft::ungrouped_weight(layer.weight, g.groups), layer.bias)};
  layer.options = {g.kernel, g.stride, g.padding, g.dilation};
  return layer;
}

}  // namespace

TEST_CASE("A convolution over patches is the convolution, on one to three axes") {
  const auto g = GENERATE(Geometry{4, 6, 1, {9}, {3}, {1}, {1}, {1}},
                          Geometry{3, 5, 1, {7, 6}, {3, 2}, {2, 1}, {1, 0}, {1, 1}},
                          Geometry{4, 6, 2, {6, 5}, {3, 3}, {1, 2}, {1, 1}, {1, 1}},
                          Geometry{2, 3, 1, {9, 8}, {3, 3}, {1, 1}, {2, 1}, {2, 3}},
                          Geometry{6, 6, 6, {5, 5}, {2, 2}, {1, 1}, {0, 0}, {1, 1}},
                          Geometry{2, 4, 1, {4, 3, 5}, {2, 1, 3}, {1, 1, 2}, {0, 0, 1}, {1, 1, 1}});
  const Layer layer = make(g, 3);
  BasicTape<double> tape({.gradients = false});
  const auto y = convolution(layer.site, tape.constant(layer.x), layer.options).value();
  const auto expected = reference(layer.x, layer.weight, layer.bias, g);
  CHECK(y.shape() == expected.shape());
  CHECK(checks::relative_error(y, expected) < 1e-13);
}

TEST_CASE("Patches pass their gradients back to every place that they came from") {
  const auto g = GENERATE(Geometry{3, 4, 1, {6, 5}, {3, 2}, {2, 1}, {1, 1}, {1, 2}},
                          Geometry{4, 2, 2, {8}, {3}, {1}, {2}, {2}});
  const Layer layer = make(g, 5);
  const graft::BasicParameter<double> x(layer.x);
  const auto loss = [&](BasicTape<double>& tape) {
    return sum(square(convolution(layer.site, tape.parameter(x), layer.options)));
  };
  CHECK(graft::gradient_check(loss, {x}).relative_error < 1e-8);
}

TEST_CASE("The weight of a grouped convolution survives the way to a whole matrix and back") {
  const auto weight = checks::random_tensor<float>({6, 2, 3, 3}, 1);
  const auto whole = graft::ungrouped_weight(weight, 3);
  CHECK(whole.shape() == Shape{6, 6 * 9});
  CHECK(whole(0, 0) == weight[0]);
  CHECK(whole(0, 2 * 9) == 0);
  CHECK(whole(5, 4 * 9) == weight[5 * 18]);
  const auto back = graft::grouped_weight(whole, 3);
  CHECK(std::equal(weight.begin(), weight.end(), back.begin()));
  CHECK_THROWS_AS(graft::ungrouped_weight(weight, 4), graft::ShapeError);
}

TEST_CASE("Patches of impossible sizes are refused") {
  BasicTape<float> tape;
  const auto x = tape.constant(checks::random_tensor<float>({1, 2, 4, 4}, 1));
  CHECK_THROWS_AS(unfold(x, {{3}, {1}, {0}, {1}}), graft::ShapeError);
  CHECK_THROWS_AS(unfold(x, {{5, 5}, {1, 1}, {0, 0}, {1, 1}}), graft::ShapeError);
  CHECK_THROWS_AS(unfold(x, {{3, 3}, {0, 1}, {0, 0}, {1, 1}}), graft::ShapeError);
  CHECK_THROWS_AS(unfold(x, {{3, 3}, {1}, {0, 0}, {1, 1}}), graft::ShapeError);
}
