#include "graft/base/profile.hpp"

#include <catch2/catch.hpp>
#include <optional>
#include <vector>

#include "graft/kernels/elementwise.hpp"
#include "graft/kernels/frozen.hpp"
#include "graft/kernels/gemm.hpp"

using graft::Index;
using graft::Profile;
using graft::ProfileScope;

TEST_CASE("A profile counts calls, operations and bytes of the kernels while it is on") {
  const std::vector<float> a(6, 1.0F), b(12, 2.0F);
  std::vector<float> c(8, 0.0F);
  const auto product = [&] {
    graft::kernels::gemm(false, false, 2, 4, 3, 1.0F, a.data(), 3, b.data(), 4, 0.0F, c.data(), 4);
  };
  Profile profile;
  product();
  CHECK(profile.events().empty());
  {
    const auto on = profile.record();
    product();
    product();
    graft::kernels::add(c.data(), c.data(), c.data(), Index{8});
  }
  product();
  REQUIRE(profile.events().size() == 3);
  const auto rows = profile.rows();
  REQUIRE(rows.size() == 3);
  CHECK(rows.back().name == "between kernels");
  double sum = 0;
  for (const auto& row : rows) {
    sum += row.seconds;
    if (row.name == "product") {
      CHECK(row.calls == 2);
      CHECK(row.operations == 2 * 2 * 2 * 4 * 3);
      CHECK(row.bytes == 2 * 4 * (2 * 3 + 3 * 4 + 2 * 4));
    } else if (row.name == "add") {
      CHECK(row.calls == 1);
      CHECK(row.bytes == 3 * 4 * 8);
    }
  }
  CHECK(sum == Approx(profile.seconds()));
  CHECK(profile.table().find("product") != std::string::npos);
}

TEST_CASE("Kernels inside a kernel count in the outer one, recordings nest") {
  Profile outer, inner;
  {
    const auto on = outer.record();
    {
      const ProfileScope scope("first", 1, 2);
      const ProfileScope hidden("second", 3, 4);
    }
    {
      const auto other = inner.record();
      const ProfileScope scope("third", 5, 6);
    }
    const ProfileScope scope("fourth", 7, 8);
  }
  REQUIRE(outer.events().size() == 2);
  CHECK(outer.events()[0].name == std::string("first"));
  CHECK(outer.events()[1].name == std::string("fourth"));
  CHECK(outer.events()[0].end <= outer.events()[1].begin);
  REQUIRE(inner.events().size() == 1);
  CHECK(inner.events()[0].operations == 5);
}

TEST_CASE("The trace has one complete event a call") {
  Profile profile;
  {
    const auto on = profile.record();
    { const ProfileScope scope("some kernel", 10, 20); }
    { const ProfileScope scope("another", 0, 0); }
  }
  const std::string trace = profile.chrome_trace();
  CHECK(trace.find("\"name\": \"some kernel\", \"ph\": \"X\"") != std::string::npos);
  CHECK(trace.find("\"operations\": 10, \"bytes\": 20") != std::string::npos);
  std::size_t events = 0;
  for (std::size_t at = trace.find("\"ph\""); at != std::string::npos;
       at = trace.find("\"ph\"", at + 1))
    ++events;
  CHECK(events == 2);
}
