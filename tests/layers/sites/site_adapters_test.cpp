#include "graft/layers/sites/site_adapters.hpp"

#include <catch2/catch.hpp>

#include "layers/sites/support.hpp"

using namespace site_tests;

TEST_CASE("A site runs the active adapters only, each around those before it") {
  auto site = identity_site(2);
  attach(site, "a", Affine{2, 1});
  attach(site, "b", Affine{3, 10});
  CHECK(run(site, {1, 2}) == std::vector<float>{1, 2});
  site.activate({"a"});
  CHECK(run(site, {1, 2}) == std::vector<float>{3, 5});
  site.activate({"a", "b"});  // b(a(base)): 2 · (3 x) + 1 + 10
  CHECK(run(site, {1, 2}) == std::vector<float>{17, 23});
  site.activate({"b", "a"});
  CHECK(run(site, {1, 2}) == std::vector<float>{17, 23});
  site.activate({});
  CHECK(run(site, {1, 2}) == std::vector<float>{1, 2});
}

TEST_CASE("Adapters that say so change the input in the order of their names") {
  auto site = identity_site(3);
  attach(site, "a", Rotate{10});
  attach(site, "b", Rotate{100});
  attach(site, "c", Affine{1, 0.5F});
  site.activate({"a", "b"});  // a moves and scales the 1, then b the 2
  CHECK(run(site, {1, 2, 3}) == std::vector<float>{3, 10, 200});
  site.activate({"b", "a"});
  CHECK(run(site, {1, 2, 3}) == std::vector<float>{3, 100, 20});
  site.activate({"a", "b", "c"});
  CHECK(run(site, {1, 2, 3}) == std::vector<float>{3.5F, 10.5F, 200.5F});
  site.activate({"a", "c", "b"});  // c between them: b wraps it and sees the input first
  CHECK(run(site, {1, 2, 3}) == std::vector<float>{3.5F, 100.5F, 20.5F});
}

TEST_CASE("A site without an adapter of a name runs none of it, and names may be of none") {
  auto site = identity_site(2);
  attach(site, "a", Affine{2, 1});
  site.activate({"c", "a"});
  CHECK(run(site, {1, 2}) == std::vector<float>{3, 5});
  CHECK(site.chain_of("a").size() == 1);
  CHECK(site.chain_of("c").empty());
  // One name for the whole batch goes before what is active.
  auto context = std::make_shared<graft::ForwardContext>();
  context->only = "c";
  CHECK(run(site, {1, 2}, context) == std::vector<float>{1, 2});
  site.activate({});
  context = std::make_shared<graft::ForwardContext>();
  context->only = "a";
  CHECK(run(site, {1, 2}, context) == std::vector<float>{3, 5});
}
