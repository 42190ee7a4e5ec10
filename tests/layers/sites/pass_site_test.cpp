#include "graft/layers/sites/pass_site.hpp"

#include <catch2/catch.hpp>

#include "graft/layers/forward_context.hpp"

using graft::Tape;
using graft::Tensor;

namespace {

/// Asks for the hidden states of a first pass.
struct Asks final : graft::PassAdapterInterface<float> {
  void before(Tape& tape, const std::function<Tensor(Tape&)>& hidden_states) const override {
    seen.push_back(hidden_states(tape).item());
  }
  mutable std::vector<float> seen;
};

}  // namespace

TEST_CASE("Active adapters of a pass see it before it runs; rows of a batch cannot name them") {
  graft::BasicPassSite<float> site("model");
  const auto asks = std::make_shared<Asks>();
  site.adapters() = {{"asks", asks}};
  Tape tape({.gradients = false});
  const auto pass = [](Tape&) { return Tensor::full({1}, 5); };
  site(tape, pass);
  CHECK(asks->seen.empty());
  site.activate({"asks"});
  site(tape, pass);
  CHECK(asks->seen == std::vector<float>{5});
  auto context = std::make_shared<graft::ForwardContext>();
  context->row_adapters = {"other"};
  tape.set_context(context);
  site(tape, pass);
  CHECK(asks->seen.size() == 1);
  context->row_adapters = {"other", "asks"};
  CHECK_THROWS_WITH(site(tape, pass), Catch::Contains("'asks'"));
}
