#include "graft/adapters/memory/side_stack.hpp"

#include "adapters/memory/tiny_model.hpp"
#include "graft/adapters/memory/lst.hpp"
#include "graft/adapters/memory/qst.hpp"
#include "graft/adapters/memory/sherl.hpp"

using graft::BasicTensor;
using graft::Index;

namespace {

using Setup = memory::OnLlama<double>;

const graft::LSTConfig kLst{.reduction_factor = 2};
const graft::QSTConfig kQst{.reduction_factor = 2, .downsample_rank = 3};

/// The tensor of a set by the end of its key.
graft::BasicParameter<double> tensor_of(const graft::AdapterSet<double>& set,
                                        const std::string& end) {
  for (const auto& [key, tensor] : set.tensors())
    if (key.ends_with(end)) return tensor.parameter;
  throw graft::ValueError(end);
}

/// Token by token with caches, the model gives what it gives in one pass.
void check_cached(const Setup& setup) {
  const std::vector<std::int32_t> ids{3, 16, 18, 2, 2};
  const auto whole = setup.logits(Setup::batch(ids));
  graft::BasicKvCache<double> cache;
  graft::BasicTape<double> tape({.gradients = false, .training = false});
  std::size_t done = 0;
  for (const std::size_t count : {2U, 1U, 1U, 1U}) {
    const auto part = Setup::batch({ids.begin() + static_cast<std::ptrdiff_t>(done),
                                    ids.begin() + static_cast<std::ptrdiff_t>(done + count)});
    done += count;
    const auto last = setup.model.next_logits(tape, part, cache);
    for (Index j = 0; j < last.size(); ++j)
      CHECK(last[j] == Approx(whole[(static_cast<Index>(done) - 1) * last.size() + j]));
  }
  // Another text in between takes the side network's cache.
  setup.logits(Setup::batch({1, 2}));
  CHECK_THROWS_WITH(setup.model.next_logits(tape, Setup::batch({4}), cache),
                    Catch::Contains("one text at a time"));
}

}  // namespace

TEST_CASE("Ladders have the gradients of their functions and generate with a cache") {
  auto subset = kLst;
  subset.side_layers = {0, 2};
  auto plain = kLst;
  plain.gated = false;
  for (const auto& config : {kLst, subset, plain}) {
    Setup setup(config);
    memory::randomize(setup.set());
    CHECK(setup.gradient_error() < 1e-5);
    check_cached(setup);
  }
  for (const auto* way : {"low_rank", "linear", "max_pool", "avg_pool"}) {
    auto config = kQst;
    config.downsample = way;
    Setup setup(config);
    memory::randomize(setup.set());
    CHECK(setup.gradient_error() < 1e-5);
    if (config.downsample == "low_rank") check_cached(setup);
  }
}

TEST_CASE("Side blocks begin as parts of the model's own") {
  // Over 1 they are the whole blocks.
  Setup whole(graft::LSTConfig{.reduction_factor = 1});
  for (const auto* site : whole.model.sites().linear) {
    if (site->path() == "lm_head") continue;
    const auto key = "shared.ladder." + site->path().substr(site->path().find('.') + 1) + ".weight";
    CHECK(checks::relative_error(tensor_of(whole.set(), key).value(),
                                 site->base().dense_weight()) == 0);
  }
  Setup half(kLst);
  const auto q = tensor_of(half.set(), "layers.1.self_attn.q_proj.weight").value();
  REQUIRE(q.shape() == graft::Shape{4, 6});
  // Every second element of the heads, and of each row six in their order.
  const auto from = half.model.sites().linear[7]->base().dense_weight();
  for (Index o = 0; o < 4; ++o) {
    Index at = 0;
    for (Index i = 0; i < 6; ++i) {
      while (at < 12 && from(2 * o, at) != q(o, i)) ++at;
      CHECK(at < 12);
    }
  }
}

TEST_CASE("The limits of the gates are what they say") {
  Setup gated(kLst);
  auto plain_config = kLst;
  plain_config.gated = false;
  Setup plain(plain_config);
  // α = 0 is μ = ½.
  CHECK(checks::relative_error(gated.logits(Setup::batch()), plain.logits(Setup::batch())) < 1e-12);
  CHECK(gated.set().trainable_elements() == plain.set().trainable_elements() + 3);

  Setup qst(kQst);
  tensor_of(qst.set(), "mix_final").assign(BasicTensor<double>::full({12}, 60));
  const auto with = qst.logits(Setup::batch());
  {
    const auto off = qst.adapters.disabled();
    CHECK(checks::relative_error(with, qst.logits(Setup::batch())) < 1e-12);
  }
  CHECK_THROWS_WITH(qst.adapters.merge(), Catch::Contains("no change of a weight"));
  CHECK_THROWS_WITH(Setup(graft::LSTConfig{.reduction_factor = 5}),
                    Catch::Contains("reduction_factor 5") && Catch::Contains("width 12"));
  CHECK_THROWS_WITH(Setup(graft::LSTConfig{.reduction_factor = 2, .side_layers = {2, 1}}),
                    Catch::Contains("rising"));
  CHECK_THROWS_WITH(Setup(graft::QSTConfig{.downsample = "mean"}), Catch::Contains("max_pool"));
}

TEST_CASE("SHERL on a model feeds its last block and keeps nothing of those before") {
  Setup setup(graft::SHERLConfig{.mapping_size = 6});
  CHECK(setup.set().trainable_elements() == 3 * 6 * 15 + 6 + 12 * 9 + 2);
  memory::randomize(setup.set(), 0.2);
  tensor_of(setup.set(), "gate.bias").assign(BasicTensor<double>::full({1}, 2));
  tensor_of(setup.set(), "theta").assign(BasicTensor<double>::full({1}, 0.03));
  CHECK(setup.gradient_error() < 1e-5);
  CHECK(setup.part<graft::SHERLStack<double>>().last_weights().shape() == graft::Shape{8, 2});
  CHECK_THROWS_WITH(Setup(graft::SHERLConfig{.num_states = 4}), Catch::Contains("4 states"));
}
