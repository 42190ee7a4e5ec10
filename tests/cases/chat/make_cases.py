"""Makes the chat template cases of this folder: what Jinja, set up as in transformers, renders.

    pip install jinja2==3.1.6 && python3 make_cases.py
"""

import json
import pathlib

from jinja2 import nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

TEMPLATES = {}
TEMPLATES['loops'] = "{% for a, b in [(1, 'x'), (2, 'y')] %}{{ loop.index }}/{{ loop.length }}:{{ a }}{{ b }}{{ ',' if not loop.last }}{% else %}none{% endfor %}|{% for i in [] %}x{% else %}empty{% endfor %}|{% for i in range(10) if i is odd %}{% if i > 6 %}{% break %}{% endif %}{% if i == 3 %}{% continue %}{% endif %}{{ i }}{{ loop.revindex }}{% endfor %}|{% for c in 'añb' %}{{ loop.cycle('-', '+') }}{{ c }}{% endfor %}|{% for k, v in {'a': 1, 'b': [2, 'q']}.items() %}{{ k }}={{ v }};{% endfor %}{{ loop is defined }}"
TEMPLATES['space'] = "a\n  {% if true %}\n  b  \n  {%- endif %}\n  {# c #}\nd {{ 'e' -}}  \n f\n   {%+ if true %}g{% endif +%}\n\n   {{- 'h' }}\n{%- for i in range(2) -%}\n  {{ i }}\n{%- endfor %}\n\n"
TEMPLATES['numbers'] = "{{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 10 }} {{ 1.5 + 1 }} {{ 3 * 2.0 }} {{ 10 - 3 - 2 }} {{ 2 + 3 * 4 }} {{ (2 + 3) * 4 }} {{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ '5' | int + 1 }} {{ 'x' | int(9) }} {{ '2.5' | float }} {{ -3 | abs }} {{ 1e3 is defined }}"
TEMPLATES['strings'] = "{{ 'AbC dEf' | upper }} {{ 'AbC' | lower }} {{ 'hello wORLD' | title }} {{ 'hELLO' | capitalize }} {{ '  x ' | trim }}. {{ 'xxaxx'.strip('x') }} {{ 'a,b,,c'.split(',') }} {{ 'a b  c'.split() }} {{ 'a-b-c'.split('-', 1) }} {{ 'banana'.replace('an', 'AN', 1) }} {{ 'ab' * 3 }} {{ 'a' ~ 1 ~ none ~ true }} {{ 'héllo'[1:4] }} {{ 'héllo'[::-1] }} {{ 'héllo'[-1] }} {{ 'héllo' | length }} {{ 'l' in 'héllo' }} {{ 'abc'.startswith('ab') }} {{ 'abc'.endswith(('x', 'c')) }} {{ 'abcab'.find('b') }} {{ 'abcab'.count('ab') }} {{ \"it's\" }} {{ 'a\\tb\\n\\u00e9\\\\' }} {{ 'one' 'two' }} {{ ['it\\'s', \"q\", 1, 2.0, none, false] }}"
TEMPLATES['lists'] = "{{ [3, 1, 2] | first }} {{ [3, 1, 2] | last }} {{ [1, 2, 3, 4][1:-1] }} {{ [1, 2, 3][::2] }} {{ [1, 2] + [3] }} {{ [1, 2, 3] | length }} {{ [1, 2, 3] | join(', ') }} {{ 2 in [1, 2] }} {{ 5 not in [1, 2] }} {{ [1, [2, 3]] }} {{ {'a': {'b': 1}} }} {{ {'a': 1}.get('b', 7) }} {{ {'a': 1}['a'] }} {{ [{'n': 'x', 'v': 1}, {'n': 'y', 'v': 0}] | selectattr('v') | map(attribute='n') | join }} {{ [1, 2, 3, 4] | select('even') | list }} {{ [1, 2, 3] | reject('equalto', 2) | list }} {{ ['a', 'B'] | map('upper') | list }} {{ [1, 2, 1] | unique | list }} {{ [1, 2, 3] | reverse | list }} {{ {'b': [1, {'c': none}], 'a': \"q\\\"\\n\"} | tojson }} {{ {'b': [1, 2], 'e': {}} | tojson(indent=2) }} {{ [] == [] }} {{ [1, 'a'] == [1, 'a'] }} {{ ([1, 2])[5] is defined }}"
TEMPLATES['logic'] = "{{ true and 'x' or 'y' }} {{ '' or 'z' }} {{ not '' }} {{ not (1 == 1) }} {{ none is none }} {{ x is defined }} {{ x is undefined }} {{ x | default('dx') }} {{ '' | default('e', true) }} {{ 'a' is string }} {{ 1 is number }} {{ true is boolean }} {{ 1 is integer }} {{ 1.0 is float }} {{ {} is mapping }} {{ [] is sequence }} {{ 'a' is iterable }} {{ 3 is odd }} {{ 4 is divisibleby 2 }} {{ 1 is not none }} {{ 'b' if 1 > 2 else 'c' }} {{ 'only' if false }}. {{ 1 if false else 2 if false else 3 }} {{ 1 == 1.0 }} {{ true == 1 }} {{ 'a' < 'b' }} {{ (x.y is defined) if (x is defined) else 'no x' }} {{ messages[0].nothing is defined }} {{ messages[0].nothing }}|{{ 1 is true }} {{ true is true }} {{ 2 is in([1, 2]) }} {{ 'a' is eq 'a' }}"
TEMPLATES['set'] = "{% set a = 1 %}{% if true %}{% set a = 2 %}{% endif %}{{ a }}{% for i in [1, 2] %}{% set a = a + 10 %}{{ a }},{% endfor %}{{ a }} {% set ns = namespace(n=0, s='') %}{% for i in range(4) %}{% set ns.n = ns.n + i %}{% set ns.s = ns.s ~ i %}{% endfor %}{{ ns.n }}{{ ns.s }} {% set b, c = 1, 'two' %}{{ b }}{{ c }} {% set block %}x{{ a }}\ny{% endset %}{{ block | upper }} {% set t = 1, 2 %}{{ t | length }}"
TEMPLATES['macros'] = "{% macro greet(name, mark='!') %}Hi {{ name }}{{ mark }}{% endmacro %}{{ greet('you') }} {{ greet('me', mark='?') }} {{ greet(name='us') | upper }}{% macro fact(n) %}{{ 1 if n <= 1 else n * (fact(n - 1) | int) }}{% endmacro %} {{ fact(5) }}{% set outer = 'o' %}{% macro sees() %}{{ outer }}{% endmacro %}{{ sees() }}"
TEMPLATES['generation'] = "{% for m in messages %}{% if m.role == 'assistant' %}[{% generation %}{{ m.content }}</s>{% endgeneration %}]{% else %}({{ m.content }}){% endif %}{% endfor %}"

# The shape of published templates: defaults, order of roles, answers rewritten in the history.
TEMPLATES['default_system'] = "{% for m in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
TEMPLATES['system_before_user'] = """{{ bos_token }}
{%- if messages[0].role == 'system' -%}
    {%- set prefix = messages[0].content + '

' -%}
    {%- set rest = messages[1:] -%}
{%- else -%}
    {%- set prefix = '' -%}
    {%- set rest = messages -%}
{%- endif -%}
{%- for m in rest -%}
    {%- if (m.role == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception('roles must alternate') }}
    {%- endif -%}
    {{ '<turn>' + ('model' if m.role == 'assistant' else m.role) + '
' + (prefix if loop.first else '') }}
    {{- m.content | trim }}
    {{- '<end>
' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '<turn>model
' }}
{%- endif -%}
"""
TEMPLATES['thoughts'] = """{%- set ns = namespace(last=messages|length - 1, searching=true) %}
{%- for m in messages[::-1] %}
    {%- if ns.searching and m.role == 'user' %}
        {%- set ns.searching = false %}
        {%- set ns.last = messages|length - 1 - loop.index0 %}
    {%- endif %}
{%- endfor %}
{%- for m in messages %}
    {%- set content = m.content %}
    {%- set thought = '' %}
    {%- if m.role == 'assistant' and '</think>' in content %}
        {%- set thought = content.split('</think>')[0].split('<think>')[-1].strip('\\n') %}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
    {%- endif %}
    {{- '[' ~ m.role ~ ']' }}
    {%- if m.role == 'assistant' and loop.index0 > ns.last %}
        {{- '<think>' ~ thought ~ '</think>' }}
    {%- endif %}
    {{- content ~ '[end]\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"""


class Generation(Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_pass"), [], [], body).set_lineno(line)

    def _pass(self, caller):
        return caller()


def raise_exception(message):
    raise TemplateError(message)


def tojson(value, indent=None):
    return json.dumps(value, ensure_ascii=False, indent=indent)


def message(role, content):
    return {"role": role, "content": content}


CHATS = [
    [message("user", "Hi")],
    [message("user", "  padded \n"), message("assistant", " answer \n\n")],
    [message("system", "Be brief."), message("user", "2 + 2?"), message("assistant", "<think>\nhm\n</think>\n\n4"), message("user", "And?"), message("assistant", "é 🙂")],
    [message("user", "a"), message("user", "b")],
]

environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"])
environment.filters["tojson"] = tojson
environment.globals["raise_exception"] = raise_exception
cases = []
for name, template in TEMPLATES.items():
    renderings = []
    for chat in CHATS:
        for prompt in (False, True):
            try:
                rendered = environment.from_string(template).render(messages=chat, add_generation_prompt=prompt, bos_token="<s>", eos_token="</s>")
            except TemplateError:
                rendered = None
            renderings.append({"messages": chat, "add_generation_prompt": prompt, "rendered": rendered})
    cases.append({"name": name, "template": template, "renderings": renderings})
path = pathlib.Path(__file__).resolve().parent / "templates.json"
path.write_text(json.dumps(cases, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
