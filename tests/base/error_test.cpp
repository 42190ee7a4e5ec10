#include "graft/base/error.hpp"

#include <catch2/catch.hpp>

#include <stdexcept>
#include <string>
#include <string_view>

TEST_CASE("concat joins texts, numbers and truth values in order", "[base]") {
  const std::string name = "q_proj";
  const std::string_view view = "view";
  CHECK(graft::concat("layer ", name, ": ", 3, " x ", -4L, ' ', view, ' ', true, '/', false) ==
        "layer q_proj: 3 x -4 view true/false");
  CHECK(graft::concat().empty());
  CHECK(graft::concat(std::size_t{18446744073709551615ull}) == "18446744073709551615");
}

TEST_CASE("every exception is a graft::Error and keeps its message", "[base]") {
  CHECK_THROWS_WITH(throw graft::ShapeError("a shape"), "a shape");
  CHECK_THROWS_AS(throw graft::ShapeError("x"), graft::Error);
  CHECK_THROWS_AS(throw graft::ValueError("x"), graft::Error);
  CHECK_THROWS_AS(throw graft::IoError("x"), graft::Error);
  CHECK_THROWS_AS(throw graft::IoError("x"), std::runtime_error);
}

TEST_CASE("the exceptions are told apart by type", "[base]") {
  bool shape = false;
  try {
    throw graft::ShapeError("x");
  } catch (const graft::ValueError&) {
    FAIL("a ShapeError was caught as a ValueError");
  } catch (const graft::ShapeError&) {
    shape = true;
  }
  CHECK(shape);
}
