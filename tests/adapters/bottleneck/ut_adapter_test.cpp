#include "graft/adapters/bottleneck/ut_adapter.hpp"

#include <catch2/catch.hpp>

#include "adapters/method_checks.hpp"
#include "graft/autograd/gradient_check.hpp"
#include "graft/autograd/ops/norm.hpp"
#include "graft/autograd/ops/reduce.hpp"

using checks::random_tensor;
using graft::Index;
using Tape = graft::BasicTape<double>;
using Var = graft::BasicVar<double>;

namespace {

constexpr Index kUtWidth = 6;

/// The end of a sublayer of a block that normalises after the sum, with the adapter that runs
/// there.
struct PostNorm {
  PostNorm() {
    graft::BasicNorm<double> own;
    own.weight = random_tensor<double>({kUtWidth}, 1);
    own.bias = random_tensor<double>({kUtWidth}, 2);
    norm = {"norm", own};
    site = {"sublayer", kUtWidth, graft::HiddenRole::feed_forward, "dense", &norm};
    graft::HiddenSiteInfo<double> info;
    info.width = kUtWidth;
    info.role = site.role();
    info.norm = &norm;
    part = graft::UTAdapterMethod<double>::hidden({.channels = 3}, info, init.context());
    site.adapters() = {{"ut", part}};
  }
  graft::BasicParameter<double> parameter(const std::string& name) const {
    for (const auto& t : part->tensors())
      if (t.name == name) return t.parameter;
    throw graft::ValueError("no tensor " + name);
  }

  graft::StandaloneInit<double> init{3};
  graft::BasicNormSite<double> norm;
  graft::BasicHiddenSite<double> site;
  std::shared_ptr<graft::HiddenPart<double>> part;
};

}  // namespace

TEST_CASE(
    "A UT-Adapter normalises what a sublayer made, not the sum, where a norm follows the sum") {
  PostNorm block;
  for (const char* name : {"ut_up.weight", "ut_up.bias"}) {
    auto p = block.parameter(name);
    std::fill(p.value().begin(), p.value().end(), 0.0);
  }
  Tape tape({.gradients = false, .training = false});
  const auto in = tape.constant(random_tensor<double>({4, kUtWidth}, 4)),
             out = tape.constant(random_tensor<double>({4, kUtWidth}, 5)),
             x = tape.constant(random_tensor<double>({4, kUtWidth}, 6));
  const auto fresh_norm = [&](const Var& y) {
    return layer_norm(y, tape.constant(graft::BasicTensor<double>::ones({kUtWidth})),
                      tape.constant(graft::BasicTensor<double>::zeros({kUtWidth})), 1e-5);
  };
  CHECK(checks::relative_error(block.site.normalised_sum(in, out, x).value(),
                               block.norm(add(x, out)).value()) == 0);
  block.site.activate({"ut"});
  // Without a convolution C(x) is the norm of x.
  const auto expected = fresh_norm(add(add(block.norm(out), x), fresh_norm(x)));
  CHECK(checks::relative_error(block.site.normalised_sum(in, out, x).value(), expected.value()) <
        1e-12);
}

TEST_CASE("All tensors of a UT-Adapter before a norm have the gradient of their values") {
  PostNorm block;
  block.site.activate({"ut"});
  std::vector<graft::BasicParameter<double>> parameters;
  for (const auto& t : block.part->tensors()) parameters.push_back(t.parameter);
  REQUIRE(parameters.size() == 10);
  const auto loss = [&](Tape& tape) {
    const auto out = tape.constant(random_tensor<double>({4, kUtWidth}, 5)),
               x = tape.constant(random_tensor<double>({4, kUtWidth}, 6));
    return sum(mul(block.site.normalised_sum(x, out, x),
                   tape.constant(random_tensor<double>({4, kUtWidth}, 7))));
  };
  CHECK(graft::gradient_check(loss, parameters).relative_error < 1e-6);
}

TEST_CASE(
    "Rows of a batch with and without a UT-Adapter end a block before a norm each in its way") {
  PostNorm block;
  const auto in = random_tensor<double>({4, kUtWidth}, 4),
             out = random_tensor<double>({4, kUtWidth}, 5);
  const auto run = [&](std::vector<std::string> active, std::vector<std::string> rows) {
    block.site.activate(active);
    Tape tape({.gradients = false, .training = false});
    auto context = std::make_shared<graft::ForwardContext>();
    context->batch = 2;
    context->seq_len = 2;
    context->row_adapters = std::move(rows);
    tape.set_context(context);
    const auto x = tape.constant(in);
    return block.site.normalised_sum(x, tape.constant(out), x).value().clone();
  };
  const auto with = run({"ut"}, {}), without = run({}, {}), both = run({}, {"__base__", "ut"});
  for (Index i = 0; i < both.size(); ++i)
    CHECK(both[i] == Approx(i < both.size() / 2 ? without[i] : with[i]).margin(1e-12));
}
