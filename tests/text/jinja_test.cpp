#include "graft/text/jinja.hpp"

#include <catch2/catch.hpp>
#include <string>

namespace {

namespace jinja = graft::text::jinja;
using Catch::Contains;

std::string render(const std::string& source, jinja::Dict variables = {}) {
  return jinja::Template(source).render(std::move(variables)).text;
}

}  // namespace

TEST_CASE("Precedence and chains are Jinja's") {
  CHECK(render("{{ 'a' + 'b ' | trim + 'c' }}") == "abc");
  CHECK(render("{{ not 1 == 2 }} {{ 1 ~ 2 * 3 }}") == "True 16");
  CHECK(render("{{ 2 * 3 ** 2 }} {{ -2 ** 2 }} {{ 1 < 2 <= 2 != 3 }}") == "18 4 True");
  CHECK(render("{{ 1 if 0 else 2 if 0 else 3 }}") == "3");
}

TEST_CASE("White space around tags is trimmed as transformers sets Jinja up") {
  CHECK(render("a\n  {% if 1 %}\n b\n  {% endif %}\nc\n") == "a\n b\nc");
  CHECK(render("a {%- if 1 -%} \n b {% endif %}") == "ab ");
  CHECK(render("  {{ 1 }}\n{# x #}\n{{ 2 }}\n\n") == "  1\n2\n");
  CHECK(render("a\r\n{% if 1 %}\r\nb{% endif %}") == "a\r\nb");
}

TEST_CASE("Strings know the escapes of control characters and codes, and keep other backslashes") {
  CHECK(render(R"({{ 'a\n\t\r\b\f\v\0b' }})") == std::string("a\n\t\r\b\f\v\0b", 9));
  CHECK(render(R"({{ '\\ \' \" \x41 \u00e9 \U0001F600' }})") == "\\ ' \" A \u00e9 \U0001F600");
  CHECK(render("{{ 'a\\\nb' }}") == "ab");
  CHECK(render(R"({{ '\q' }})") == R"(\q)");
}

TEST_CASE("Undefined values print nothing, and fail where a value is needed") {
  CHECK(render("[{{ x }}{{ x.y is defined if x else '' }}{% for i in x %}i{% endfor %}]") == "[]");
  CHECK_THROWS_WITH(render("{{ x.y }}"), Contains("'x'"));
  CHECK_THROWS_WITH(render("{{ 'a' + x }}"), Contains("'x'"));
  CHECK_THROWS_WITH(render("{{ x() }}"), Contains("'x'"));
}

TEST_CASE("Numbers are written as Python writes them") {
  CHECK(
      render(
          "{{ 100000.0 }} {{ 1e15 }} {{ 1e16 }} {{ 0.0001 }} {{ 0.00001 }} {{ 1.5 }} {{ 0.0 }}") ==
      "100000.0 1000000000000000.0 1e+16 0.0001 1e-05 1.5 0.0");
  CHECK(render("{{ [0.0001, 200000.0] | tojson }}") == "[0.0001, 200000.0]");
}

TEST_CASE("Arguments of filters that would be left aside are refused by their name") {
  CHECK(render("{{ {'b': 1} | tojson(ensure_ascii=false, sort_keys=false, indent=1) }}") ==
        "{\n \"b\": 1\n}");
  for (const std::string argument : {"ensure_ascii", "sort_keys", "separators", "cls"})
    CHECK_THROWS_WITH(render("{{ {'b': 1} | tojson(" + argument + "=[1]) }}"),
                      Contains("'" + argument + "'") && Contains("tojson"));
  CHECK_THROWS_WITH(render("{{ {'b': 1} | tojson(4) }}"), Contains("1 arguments"));
  CHECK_THROWS_WITH(render("{{ '12' | int(base=16) }}"), Contains("'base'"));
  CHECK(render("{{ ['b', 'A', 'B', 'a'] | unique | join }}") == "bA");
  CHECK(render("{{ ['b', 'A', 'B', 'a'] | unique(case_sensitive=true) | join }}") == "bABa");
  CHECK(render("{{ [{'a': 1}, {}] | map(attribute='a', default='x') | join('-') }}") == "1-x");
}

TEST_CASE("Errors say the line and what is wrong") {
  CHECK_THROWS_WITH(render("a\n{{ 1 +"), Contains("line 2"));
  CHECK_THROWS_WITH(render("{% if 1 %}\n\nx"), Contains("endif"));
  CHECK_THROWS_WITH(render("{% endif %}"), Contains("endif"));
  CHECK_THROWS_WITH(render("{% for x in [1] %}"), Contains("endfor"));
  CHECK_THROWS_WITH(render("{% include 'x' %}"), Contains("include") && Contains("supported"));
  CHECK_THROWS_WITH(render("{{ 1 | sum }}"), Contains("sum"));
  CHECK_THROWS_WITH(render("{{ 1 is prime }}"), Contains("prime"));
  CHECK_THROWS_WITH(render("{{ 'a'.zfill(3) }}"), Contains("zfill"));
  CHECK_THROWS_WITH(render("{{ 1 // 0 }}"), Contains("zero"));
  CHECK_THROWS_WITH(render("{{ 'x' }"), Contains("line 1"));
  CHECK_THROWS_WITH(render("{{ \"x }}"), Contains("string"));
  CHECK_THROWS_WITH(render("{# x"), Contains("comment"));
  CHECK_THROWS_WITH(render("{% break %}"), Contains("loop"));
  CHECK_THROWS_WITH(render("{{ raise_exception('no tools') }}"), Contains("no tools"));
  CHECK_THROWS_WITH(render("{{ 9223372036854775807 + 1 }}"), Contains("too large"));
  CHECK_THROWS_AS(render("\xFF"), graft::ValueError);
}

TEST_CASE("Templates that would not end, or fill the memory, are stopped") {
  const std::string loop = "{% for a in range(99999) %}";
  CHECK_THROWS_WITH(render(loop + loop + "{% endfor %}{% endfor %}"), Contains("end"));
  CHECK_THROWS_AS(render("{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(60) %}"
                         "{% set ns.s = ns.s + ns.s %}{% endfor %}"),
                  graft::ValueError);
  CHECK_THROWS_AS(render("{{ 'x' * 999999999999 }}"), graft::ValueError);
  CHECK_THROWS_AS(render("{{ range(10000000) }}"), graft::ValueError);
  CHECK_THROWS_AS(render("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"), graft::ValueError);
  CHECK_THROWS_AS(render("{{ " + std::string(5000, '(') + "1" + std::string(5000, ')') + " }}"),
                  graft::ValueError);
  CHECK_THROWS_AS(render("{{ " + std::string(5000, '-') + "1 }}"), graft::ValueError);
  std::string chain = "{{ 1";
  for (int i = 0; i < 20000; ++i) chain += "+1";
  CHECK_THROWS_AS(render(chain + " }}"), graft::ValueError);
  std::string nested;
  for (int i = 0; i < 500; ++i) nested += "{% if 1 %}";
  CHECK_THROWS_AS(render(nested), graft::ValueError);
  // A namespace that holds itself prints no end, but is freed.
  CHECK_THROWS_AS(render("{% set ns = namespace() %}{% set ns.me = ns %}{{ ns }}"),
                  graft::ValueError);
}

TEST_CASE("Ranges of generation blocks are places in the output") {
  const jinja::Rendered rendered =
      jinja::Template(
          "ab{% generation %}cde{% endgeneration %}f{% generation %}{% endgeneration %}")
          .render({});
  REQUIRE(rendered.generated.size() == 2);
  CHECK(rendered.text.substr(rendered.generated[0].begin,
                             rendered.generated[0].end - rendered.generated[0].begin) == "cde");
  CHECK(rendered.generated[1].begin == rendered.generated[1].end);
}

TEST_CASE("Only namespaces can be written to") {
  CHECK_THROWS_WITH(render("{% set d = {'a': 1} %}{% set d.a = 2 %}"), Contains("namespace"));
  CHECK(render("{% set ns = namespace(a=1) %}{% set ns.a = 2 %}{{ ns.a }}") == "2");
}
