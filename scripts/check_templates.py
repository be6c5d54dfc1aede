"""Renders the templates below with jinja2, set up as transformers' apply_chat_template does it.

    python3 scripts/check_templates.py           compare with src/tokenizer/fixtures/templates.jsonl; exit 1 where they differ
    python3 scripts/check_templates.py --write   write that file, against which the tests hold unmask's own rendering
    python3 scripts/check_templates.py --field DIR FILE
        render every .jinja file under DIR with some chats into FILE; the tests then check these as well:
        FIELD_TEMPLATES=FILE npx vitest run src/tokenizer/jinja

Needs jinja2 3.1.6 and nothing else.
"""

import json
import pathlib
import sys
from datetime import datetime

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

GOLDEN = pathlib.Path(__file__).parent.parent / "src" / "tokenizer" / "fixtures" / "templates.jsonl"


class Generation(jinja2.ext.Extension):
    """The block that transformers adds to mark what an assistant wrote: it renders its body."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("body"), [], [], body).set_lineno(line)

    def body(self, caller):
        return caller()


def environment():
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(
            value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )

    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    made.filters["tojson"] = tojson
    made.globals["raise_exception"] = raise_exception
    made.globals["strftime_now"] = lambda format: datetime.now().strftime(format)
    return made


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Current weather of a city",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Name of the city"},
                "unit": {"type": "string", "enum": ["C", "F"], "default": None},
                "days": {"type": ["integer", "null"]},
            },
            "required": ["city"],
        },
    },
}
CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": {"city": "Zürich", "days": 3, "exact": True, "note": None}},
}
CHAT = [
    {"role": "system", "content": "Be brief. "},
    {"role": "user", "content": "Is it raining in Zürich?\n"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "name": "get_weather", "tool_call_id": "call_1", "content": '{"rain": true}'},
    {"role": "assistant", "content": "\n  Yes: <b>it</b> rains & \"pours\".\n", "reasoning_content": "The tool says so.\n"},
    {"role": "user", "content": [{"type": "text", "text": "And "}, {"type": "text", "text": "tomorrow?"}]},
]
VARIABLES = {
    "messages": CHAT,
    "tools": [WEATHER],
    "documents": None,
    "add_generation_prompt": True,
    "bos_token": "<s>",
    "eos_token": "</s>",
    "empty": "",
    "none_value": None,
    "text": "  Hello, wörld! hello\n\tbye  ",
    "word": "straße",
    "lines": "one\ntwo\r\nthree\n\nfive\n",
    "numbers": [3, 1, 2, 10],
    "floats": [0.5, 1.25, 1e20, 1e16, 123456789.125, 1e-7, -0.0],
    "mixed": ["b", "A", "c", "B"],
    "pairs": [["x", 1], ["y", 2]],
    "people": [
        {"name": "Ann", "age": 30, "tags": ["a", "b"]},
        {"name": "bob", "age": 25, "tags": []},
        {"name": "Cy", "age": 30},
    ],
    "record": {"b": 2, "a": 1, "C": {"deep": [1, "two", None, True, 2.5]}},
    "quotes": "it's \"quoted\"\\ \n\t\x07 é \U0001f600",
    "yes": True,
    "no": False,
    "five": 5,
    "half": 0.5,
}

# Name -> template. An entry may be a pair of template and variables that replace those above.
CASES = {}


def cases(group, *templates):
    for index, template in enumerate(templates, 1):
        CASES[f"{group} {index}"] = template


cases(
    "strip",
    "{{ text.strip() }}|",
    "{{ text.lstrip() }}|",
    "{{ text.rstrip() }}|",
    "{{ '</answer>xy</answer>'.strip('</answer>') }}",
    "{{ '..a '.lstrip('.') }}|",
    "{{ '\\n  a\\n  '.rstrip('\\n ') }}|",
    "{{ '##  T'.lstrip('# ') }}",
    "{{ 'aXa'.strip('') }}",
    "{{ 'aXa'.strip(none) }}",
    "{{ messages[4].content.lstrip('\\n').rstrip('\\n') }}|",
    "{{ 'mississippi'.strip('ipm') }}",
    "{{ '[x]'.strip('[]') }} {{ 'a-b^c'.strip('a-c') }}",
    "{{ text | trim }}|{{ 'xxhixx' | trim('x') }}",
    "{{ '\\ufeff x \\x85\\x1c'.strip() | length }}",
)
cases(
    "string methods",
    "{{ text.split() }}",
    "{{ 'a,b,,c'.split(',') }} {{ 'a,b,,c'.split(',', 1) }} {{ 'a,b,,c'.split(',', maxsplit=1) }}",
    "{{ 'a,b,,c'.rsplit(',', 1) }} {{ 'a b  c'.rsplit(none, 1) }}",
    "{{ lines.splitlines() }} {{ lines.splitlines(true) }}",
    "{{ 'a</think>b</think>c'.split('</think>')[-1] }} {{ 'x'.split('</think>')[0] }}",
    "{{ 'k=v=w'.partition('=') }} {{ 'k=v=w'.rpartition('=') }} {{ 'k'.partition('=') }}",
    "{{ 'prefix-x'.removeprefix('prefix-') }} {{ 'x.json'.removesuffix('.json') }} {{ 'x'.removesuffix('') }}",
    "{{ word.upper() }} {{ word.lower() }} {{ 'hELLO wORLD'.capitalize() }} {{ \"they're bill's\".title() }} {{ 'aB'.swapcase() }}",
    "{{ 'hello'.find('l') }} {{ 'hello'.rfind('l') }} {{ 'hello'.find('z') }} {{ 'hello'.index('l') }} {{ 'hello'.count('l') }}",
    "{{ 'hello'.index('z') }}",
    "{{ 'aaa'.replace('a', 'b') }} {{ 'aaa'.replace('a', 'b', 2) }} {{ 'ab'.replace('', '-') }} {{ 'a.b'.replace('.', '$&') }}",
    "{{ ', '.join(['a', 'b']) }} {{ '-'.join('abc') }} {{ ''.join([]) }}",
    "{{ ', '.join([1, 2]) }}",
    "{{ 'a'.startswith(('b', 'a')) }} {{ 'abc'.startswith('b', 1) }} {{ 'abc'.endswith('c') }} {{ 'abc'.endswith(('x', 'y')) }}",
    "{{ '12'.isdigit() }} {{ 'a1'.isalnum() }} {{ 'ab'.isalpha() }} {{ ' '.isspace() }} {{ 'AB'.isupper() }} {{ 'ab'.islower() }} {{ ''.isdigit() }} {{ '1.5'.isnumeric() }} {{ 'A b'.istitle() }}",
    "{{ 'ab'.ljust(4) }}|{{ 'ab'.rjust(4, '.') }}|{{ 'ab'.center(5, '*') }}|{{ '7'.zfill(3) }}|{{ '-7'.zfill(4) }}",
    "{{ '{} is {}'.format('x', 1) }} {{ '{0}{1}{0}'.format('a', 'b') }} {{ '{name}!'.format(name='you') }} {{ '{{}}'.format() }}",
    "{{ '%s has %d' % ('x', 3) }} {{ '%.2f' % 1.005 }} {{ '%5s|%-5s|' % ('a', 'b') }} {{ '%r' % ['x'] }} {{ '100%%' % () }}",
    "{{ '{:.2f} {:>5} {:<5}| {:05d} {:,}'.format(3.14159, 'a', 'b', 42, 1234567) }}",
    "{{ 'x' * 3 }} {{ 3 * 'ab' }} {{ [1] * 2 }} {{ 'x' * 0 }}|",
    "{{ word[0] }} {{ word[-1] }} {{ word[1:3] }} {{ word[::-1] }} {{ word[10:] }}|{{ word[99] }}|",
    "{{ '😀é'[0] }} {{ '😀é' | length }} {{ '😀é'[::-1] }}",
    "{{ 'abc'.length }}|{{ 'abc'.nothing }}|",
    "{{ 'abc'.nothing() }}",
    "{{ word.startswith('str') and word.endswith('e') }}",
)
cases(
    "printing",
    "{{ true }} {{ False }} {{ none }} {{ None }} {{ yes }} {{ no }} {{ none_value }}",
    "{{ 1 }} {{ 1.0 }} {{ 1e3 }} {{ 1_000 }} {{ 2.50 }} {{ -3 }} {{ 10 / 4 }} {{ 4 / 2 }}",
    "{{ floats }} {% for f in floats %}{{ f }} {% endfor %}",
    "{{ numbers }} {{ mixed }} {{ pairs }} {{ [] }} {{ {} }} {{ (1, 2) }} {{ (1,) }} {{ () }}",
    "{{ record }} {{ record.C }} {{ record.C.deep }}",
    "{{ tools[0].function.parameters.properties }}",
    "{{ [quotes] }} {{ ['a\\'b', 'a\"b', 'a\\'b\"c'] }}",
    "{{ missing }}|{{ record.missing }}|{{ numbers[17] }}|{{ record['missing'] }}|",
    "{{ [missing, none] }}",
    "{{ missing.deeper }}",
    "{{ none_value.deeper }}",
    "{{ none_value.deeper.still }}",
    "{{ missing() }}",
    "{{ missing + 'x' }}",
    "{{ missing ~ 'x' ~ none ~ 1 ~ true ~ [1] }}",
    "{{ 'x' + 1 }}",
    "{{ 'x' + none }}",
    "{{ none | string }} {{ true | string }} {{ [1, 'a'] | string }} {{ 1.0 | string }} {{ {'a': none} | string }}",
    "{{ messages[2].tool_calls[0].function.arguments }}",
    "{{ ' ' ~ numbers | join(',') ~ ' ' }}",
    "{{ 10 ** 2 }} {{ 2 ** -1 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7.5 % 2 }} {{ 7 - 2.5 }} {{ 1 + true }}",
    "{{ 1 / 0 }}",
    "{{ 9007199254740993 }} {{ 2 ** 70 }} {{ 1e22 }} {{ 123456789012345678 }} {{ 1.5e300 }} {{ 0.1 + 0.2 }}",
    "{{ namespace(a=1).a }} {{ range(3) }} {{ range(3) | list }} {{ range(1, 10, 4) | list }} {{ range(3, 0, -1) | list }}",
    "{{ record.items() | list }} {{ record.keys() | list }} {{ record.values() | list }}",
)
cases(
    "json",
    "{{ tools | tojson }}",
    "{{ tools | tojson(indent=4) }}",
    "{{ tools[0] | tojson(indent=2, sort_keys=true) }}",
    "{{ record | tojson }} {{ record | tojson(sort_keys=True) }} {{ record | tojson(separators=(',', ':')) }}",
    "{{ quotes | tojson }} {{ quotes | tojson(ensure_ascii=true) }} {{ '</script>&\\x7f\\u2028' | tojson }} {{ '\\x7f\\x80' | tojson(ensure_ascii=true) }}",
    "{{ none | tojson }} {{ true | tojson }} {{ 1.0 | tojson }} {{ 1e20 | tojson }} {{ floats | tojson }} {{ (1, 2) | tojson }} {{ [] | tojson(indent=2) }} {{ {} | tojson(indent=2) }}",
    "{{ {'a': [], 'b': {}, 'c': [[]]} | tojson(indent=2) }}",
    "{{ record | tojson(indent=0) }} {{ record | tojson(2) }}",
    "{{ missing | tojson }}",
    "{{ {'k': missing} | tojson }}",
    "{{ {1: 'a', true: 'b', none: 'c', 1.5: 'd'} | tojson }}",
    "{{ messages[2].tool_calls[0].function.arguments | tojson }}",
    "{{ 'x' | tojson | safe }} {{ messages[4].content | tojson }} {{ '<>&\\'' | tojson }}",
    "{% for tool in tools %}{{ tool.function.name }}: {{ tool.function.parameters.properties | tojson(indent=1) }}{% endfor %}",
    "{{ record.items() | list | tojson }} {{ record.keys() | list | tojson }}",
    "{{ {'b': 1, 'a': {'d': 1, 'c': 2}} | tojson(sort_keys=true, indent=2, separators=(', ', ' = ')) }}",
)
cases(
    "filters",
    "{{ numbers | sort }} {{ numbers | sort(reverse=true) }} {{ mixed | sort }} {{ mixed | sort(case_sensitive=true) }} {{ mixed | sort(true) }}",
    "{{ people | sort(attribute='age') | map(attribute='name') | list }} {{ people | sort(attribute='age,name', reverse=true) | map(attribute='name') | join(' ') }}",
    "{{ people | map(attribute='name') | list }} {{ people | map(attribute='tags', default='-') | list }} {{ mixed | map('upper') | list }} {{ mixed | map('replace', 'b', 'z') | join }}",
    "{{ people | selectattr('age', 'equalto', 30) | map(attribute='name') | join(', ') }} {{ people | rejectattr('tags') | map(attribute='name') | list }} {{ people | selectattr('tags', 'defined') | list | length }}",
    "{{ people | selectattr('age', '>', 26) | list | length }} {{ people | selectattr('name', 'in', ['Ann', 'Cy']) | map(attribute='age') | sum }} {{ people | rejectattr('age', 'eq', 30) | list }}",
    "{{ numbers | select('odd') | list }} {{ numbers | reject('gt', 2) | list }} {{ ['', 'a', none] | select | list }} {{ numbers | select('divisibleby', 2) | list }}",
    "{{ numbers | first }} {{ numbers | last }} {{ [] | first }}|{{ numbers | min }} {{ numbers | max }} {{ numbers | sum }} {{ people | sum(attribute='age') }} {{ mixed | max }} {{ [] | min }}|",
    "{{ 'abc' | first }} {{ 'abc' | last }} {{ 'abc' | list }} {{ record | list }} {{ 'abc' | reverse }} {{ numbers | reverse | list }} {{ 'abc' | length }} {{ record | count }}",
    "{{ missing | default('d') }} {{ none | default('d') }} {{ none | default('d', true) }} {{ '' | default('d', boolean=true) }} {{ missing | d('e') }} {{ missing.x | default('f') }}",
    "{{ record.missing | default('g') }} {{ record.missing.deeper | default('h') }}",
    "{{ numbers | join }} {{ numbers | join('-') }} {{ people | join(', ', attribute='name') }} {{ 'abc' | join('.') }} {{ [none, true, 1.0] | join(' ') }} {{ [] | join }}|",
    "{{ ['b', 'a', 'B', 'b'] | unique | list }} {{ [1, 1.0, true, 2] | unique | list }} {{ ['b', 'B'] | unique(true) | list }}",
    "{{ 'a\\nb\\n\\nc' | indent }}|{{ 'a\\nb\\n\\nc' | indent(2, true) }}|{{ 'a\\nb\\n\\nc' | indent(2, blank=true) }}|{{ 'a\\nb' | indent('> ', first=true) }}|{{ 'a\\n' | indent }}|",
    "{{ 'hello wORLD' | title }} {{ 'hELLO' | capitalize }} {{ 'aB' | upper }} {{ 'aB' | lower }} {{ \"it's a-b(c\" | title }}",
    "{{ '42' | int }} {{ '4.9' | int }} {{ 'x' | int }} {{ 'x' | int(7) }} {{ 4.9 | int }} {{ -4.9 | int }} {{ true | int }} {{ none | int }} {{ '0x1f' | int(base=16) }} {{ ' 5 ' | int }} {{ '5x' | int }} {{ '1_0' | int }}",
    "{{ '4.5' | float }} {{ 'x' | float }} {{ 'x' | float(1.5) }} {{ 3 | float }} {{ '1e3' | float }} {{ none | float }} {{ '4.5x' | float }}",
    "{{ 2.5 | round }} {{ 3.5 | round }} {{ 2.345 | round(2) }} {{ 2.1 | round(method='ceil') }} {{ 2.9 | round(0, 'floor') }} {{ 42 | round }} {{ -5 | abs }} {{ -1.5 | abs }}",
    "{{ numbers | batch(3) | list }} {{ numbers | batch(3, 0) | list }} {{ numbers | slice(3) | list }} {{ numbers | slice(3, 'x') | list }}",
    "{{ record | dictsort }} {{ record | dictsort(true) }} {{ {'x': 2, 'y': 1} | dictsort(by='value') }} {{ {'x': 2, 'y': 1} | dictsort(reverse=true) }}",
    "{{ record | items | list }} {{ missing | items | list }} {% for k, v in record | items %}{{ k }}={{ v }};{% endfor %}",
    "{{ people | groupby('age') }}",
    "{% for age, group in people | groupby('age') %}{{ age }}: {{ group | map(attribute='name') | join('+') }}; {% endfor %}",
    "{{ '<a href=\"x\">&\\'' | escape }} {{ '<b>' | e }} {{ '<b>' | safe }}",
    "{{ 'one two three four' | truncate(9) }} {{ 'one two three four' | truncate(9, true) }} {{ 'one two three four' | truncate(11, false, '…', 0) }} {{ 'short' | truncate(10) }}",
    "{{ 'one two three' | wordcount }} {{ 'x' | center(5) }}|",
    "{{ '%s-%s' | format('a', 1) }} {{ 'a-b-c' | replace('-', '+') }} {{ 'a-b-c' | replace('-', '+', 1) }} {{ 5 | string | length }} {{ 'x' | attr('nothing') }}|",
    "{{ text | upper | trim | replace('HELLO', 'bye') | length }} {{ -5 | abs + 1 }} {{ 'a' ~ 'b' | upper }}",
    "{{ none | list }}",
    "{{ none | default(none) }} {{ missing | default(none) }} {{ [none] | first }} {{ [none, 1] | last }} {{ {'a': none}.a }} {{ {'a': none}['a'] }} {{ {'a': none}.get('a', 1) }}",
    "{{ 5 | length }}",
    "{{ 'x' | nofilter }}",
    "{% if false %}{{ 'x' | nofilter }}{% endif %}",
    "{{ 'x' is notest }}",
    "{% filter upper | trim %}  some {{ word }} {% endfilter %}|{% filter replace('a', 'b') %}banana{% endfilter %}",
    "{% set block %} hi {{ five }} {% endset %}{{ block | trim }}|{{ block }}|{% set loud | upper %}hi{% endset %}{{ loud }}",
)
cases(
    "tests",
    "{{ missing is defined }} {{ none_value is defined }} {{ record.a is defined }} {{ record.z is defined }} {{ missing is undefined }} {{ numbers[9] is defined }}",
    "{{ none is none }} {{ none_value is none }} {{ missing is none }} {{ 0 is none }} {{ '' is not none }}",
    "{{ 'a' is string }} {{ 1 is number }} {{ 1.5 is number }} {{ true is number }} {{ 1 is integer }} {{ true is integer }} {{ 1.0 is float }} {{ 1 is float }} {{ true is boolean }} {{ 1 is boolean }}",
    "{{ {} is mapping }} {{ [] is mapping }} {{ 'a' is iterable }} {{ [] is iterable }} {{ {} is iterable }} {{ 5 is iterable }} {{ none is iterable }} {{ missing is iterable }}",
    "{{ 'a' is sequence }} {{ [] is sequence }} {{ {} is sequence }} {{ 5 is sequence }} {{ (1, 2) is sequence }} {{ missing is sequence }} {{ range(2) is sequence }}",
    "{{ true is true }} {{ 1 is true }} {{ false is false }} {{ 0 is false }} {{ none is false }} {{ yes is true }}",
    "{{ 3 is odd }} {{ 4 is even }} {{ 9 is divisibleby 3 }} {{ 9 is divisibleby(2) }} {{ 9 is not divisibleby 2 }}",
    "{{ 1 is eq 1 }} {{ 1 is equalto 1.0 }} {{ 'a' is eq('a') }} {{ 1 is ne 2 }} {{ 1 is lt 2 }} {{ 2 is ge(2) }} {{ 3 is greaterthan 2 }} {{ 2 is sameas 2 }} {{ none is sameas none }}",
    "{{ 'a' is in ['a', 'b'] }} {{ 'z' is not in 'abc' }} {{ 'a' is in(record) }} {{ five is in numbers }}",
    "{{ 'abc' is lower }} {{ 'ABC' is upper }} {{ 'a1' is lower }} {{ '1' is upper }} {{ 'x' is callable }} {{ range is callable }} {{ 'upper' is filter }} {{ 'odd' is test }} {{ 'zz' is filter }} {{ 'x' is escaped }}",
    "{{ not missing is defined }} {{ not none is none }} {{ 5 is number and 'x' is string }} {{ five is defined and five > 3 }}",
    "{{ messages[5].content is string }} {{ messages[5].content is iterable and messages[5].content is not mapping }} {{ messages[5]['content'] is sequence }}",
    "{{ 1 is string or 'a' is string }} {{ (1 is string) is false }} {{ -1 is number }} {{ 2 * 3 is odd }}",
    "{{ missing is mapping }} {{ missing is string }} {{ missing is true }} {{ namespace() is mapping }}",
)
cases(
    "operators",
    "{{ 1 == 1.0 }} {{ 1 == true }} {{ 0 == false }} {{ '1' == 1 }} {{ '' == false }} {{ none == false }} {{ none == missing }} {{ missing == missing }} {{ none == none }} {{ [] == false }}",
    "{{ [1, 2] == [1, 2] }} {{ {'a': 1} == {'a': 1} }} {{ [1] == (1,) }} {{ [1, [2]] != [1, [2]] }} {{ {'a': 1, 'b': 2} == {'b': 2, 'a': 1} }} {{ 'a' != 'b' }}",
    "{{ 'a' < 'b' }} {{ 'Z' < 'a' }} {{ [1, 2] < [1, 3] }} {{ 1 < 2.5 }} {{ 'é' > 'z' }} {{ 1 < 2 < 3 }} {{ 3 > 2 > 2 }} {{ 1 == 1 == 1 }}",
    "{{ 'a' < 1 }}",
    "{{ none < 1 }}",
    "{{ 1 in numbers }} {{ 'el' in 'hello' }} {{ 'a' in record }} {{ 'z' not in record }} {{ [1] in [[1], [2]] }} {{ none in [none] }} {{ 1.0 in [1] }} {{ 'x' in missing }} {{ {'a': 1} in [{'a': 1}] }}",
    "{{ 1 in 'a1' }}",
    "{{ 'x' in none }}",
    "{{ 'x' in 5 }}",
    "{{ 1 and 2 }} {{ 0 and 2 }} {{ 0 or 'x' }} {{ '' or none or 'y' }} {{ not '' }} {{ not [0] }} {{ none or false }} {{ [] or {} }} {{ missing or 'z' }}",
    "{{ 'a' if true }}|{{ 'a' if false }}|{{ 'a' if false else 'b' }} {{ 'a' if no else 'b' if no else 'c' }} {{ ('a' if yes else 'b') + 'c' }}",
    "{{ [1] + [2] }} {{ (1,) + (2,) }} {{ 'a' 'b' }} {{ 'a' ~ 1 + 2 }}",
    "{{ 'a' + 'b' ~ 'c' }} {{ 1 ~ 2 }} {{ 2 * 3 ~ 'x' }} {{ -2 ** 2 }} {{ 2 ** 3 ** 2 }} {{ -five }} {{ +five }} {{ - 5 }} {{ 5 -3 }} {{ 5-3 }} {{ (1)-1 }} {{ numbers[0]-1 }}",
    "{{ (loop if false else 'noloop') }} {{ self if false }}|",
    "{{ {'a': 1, 'b': [1, {'c': 2}]}['b'][1].c }} {{ [[1, 2], [3]][0][1] }} {{ {'a': 1}.a }} {{ {5: 'x'}[5] }} {{ {'x y': 1}['x y'] }}",
    "{{ 'a\\x41\\u00e9\\'\\\"\\\\' }} {{ \"it's\" }} {{ 'say \"hi\"' }} {{ 'a\\qb' }} {{ '\\a' | length }} {{ '\\101' }}",
    "{{ 'multi\nline' }} {{ '{{ x }}' }} {{ '{% x %}' }} {{ '%}' }} {{ '}}' }}",
    "{{ true and not false }} {{ not (true and false) }} {{ not not 1 }} {{ 1 if not 0 }}",
    "{{ numbers[1:] }} {{ numbers[:-1] }} {{ numbers[::2] }} {{ numbers[::-1] }} {{ numbers[-2:] }} {{ numbers[5:] }} {{ numbers[1:3][0] }} {{ numbers[:none] }} {{ numbers[-1] }}",
    "{{ numbers[2:0:-1] }} {{ (1, 2, 3)[1:] }} {{ 'abcdef'[1:-1:2] }} {{ numbers[five - 4] }} {{ numbers['1'] }}|{{ 'abc'[::-2] }}",
    "{{ numbers.0 }} {{ pairs.1.0 }} {{ messages[0].role }} {{ messages[0]['role'] }} {{ record['C']['deep'][1] }} {{ people.0.tags.1 }}",
    "{{ 5 > 3 and 2 }} {{ (1, 2)[0] }} {{ [1, 2,] }} {{ {'a': 1,} }} {{ range(5)[2] }} {{ range(5) | last }}",
)
cases(
    "dict and list methods",
    "{{ record.get('a') }} {{ record.get('z') }} {{ record.get('z', 'd') }} {{ record.get('z', default) }}|",
    "{% for k, v in record.items() %}{{ k }}={{ v }}{% if not loop.last %}, {% endif %}{% endfor %}",
    "{% for k in record %}{{ k }}{% endfor %} {% for k in record.keys() %}{{ k }}{% endfor %} {% for v in record.values() %}{{ v }}{% endfor %}",
    "{{ record.items is callable }}|",
    "{% set d = {'items': 5, 'keys': 1} %}{{ d['items'] }} {{ d.keys is callable }} {{ d.items is defined }} {{ d.items() | length }}|",
    "{{ record.keys() | list }} {{ record | length }} {{ dict(a=1, b=2) }} {{ dict(record, a=9) }} {{ dict([['x', 1]]) }}",
    "{{ numbers.append(4) }}",
    "{{ numbers.pop() }}",
    "{{ record.update({'a': 2}) }}",
    "{{ numbers.index(2) }} {{ numbers.count(1) }} {{ numbers.copy() }} {{ (1, 2).index(2) }} {{ record.copy() }}",
    "{{ tools[0].function.get('description', '') }} {{ tools[0].get('function').get('parameters').required }}",
    "{{ 'city' in tools[0].function.parameters.required }} {{ messages[2].tool_calls is defined and messages[2].tool_calls }}",
    "{% for k, v in record | dictsort %}{{ k }}{{ loop.index }}{% endfor %}",
    "{% for a, b in pairs %}{{ a }}{{ b }}{% endfor %} {% for a, (b, c) in [[1, [2, 3]]] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
    "{% for a, b in [[1, 2, 3]] %}{{ a }}{% endfor %}",
    "{% for a, b in [1] %}{{ a }}{% endfor %}",
    "{{ record.__class__ }}|{{ ''.__class__ }}|",
    "{{ ''.__class__.__mro__ }}",
)
cases(
    "loops",
    "{% for n in numbers %}{{ loop.index }}/{{ loop.length }}:{{ n }}{{ ',' if not loop.last }}{% endfor %}",
    "{% for n in numbers %}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.cycle('a', 'b') }}{{ loop.depth }};{% endfor %}",
    "{% for n in [1, 1, 2] %}{{ loop.changed(n) }} {% endfor %}",
    "{% for n in numbers if n > 1 %}{{ loop.index }}={{ n }} {% else %}none{% endfor %}|{% for n in [] %}x{% else %}empty{% endfor %}|{% for n in numbers if n > 99 %}x{% else %}nothing{% endfor %}",
    "{% for n in numbers %}{% if n == 2 %}{% break %}{% endif %}{{ n }}{% endfor %}|{% for n in numbers %}{% if n == 1 %}{% continue %}{% endif %}{{ n }}{% endfor %}",
    "{% for n in numbers %}{% set last = n %}{% endfor %}{{ last is defined }}",
    "{% set x = 1 %}{% for n in numbers %}{% set x = x + n %}{{ x }} {% endfor %}{{ x }}",
    "{% for n in numbers %}{% if seen is defined %}leaked{% endif %}{% set seen = true %}{% endfor %}ok",
    "{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}",
    "{% set ns = namespace(found=false, items='') %}{% for n in numbers %}{% if n == 2 %}{% set ns.found = true %}{% endif %}{% set ns.items = ns.items ~ n %}{% endfor %}{{ ns.found }} {{ ns.items }}",
    "{% set ns = namespace() %}{{ ns.a is defined }} {% set ns.a = [] %}{% set ns.a = ns.a + [1] %}{{ ns.a }}",
    "{% set ns.a = 1 %}",
    "{% set record.z = 1 %}",
    "{% for c in 'abc' %}{{ c }}.{% endfor %}{% for c in missing %}x{% endfor %}",
    "{% for c in none %}x{% endfor %}",
    "{% for c in 5 %}x{% endfor %}",
    "{% for row in [[1, 2], [3]] %}{% for n in row %}{{ loop.index }}{{ n }} {% endfor %}{{ loop.index }};{% endfor %}",
    "{% for row in [[1, 2], [3]] %}{% set outer = loop %}{% for n in row %}{{ outer.index }}.{{ loop.index }} {% endfor %}{% endfor %}",
    "{% for item in [{'n': 'a', 'c': [{'n': 'b', 'c': []}]}] recursive %}{{ item.n }}({{ loop(item.c) }}){% endfor %}",
    "{% for m in messages[::-1] %}{{ m.role }}{% endfor %} {% for m in messages | reverse %}{{ loop.index }}{% endfor %}",
    "{% for i in range(messages | length - 1, -1, -1) %}{{ messages[i].role[0] }}{% endfor %}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set a, b = b, a %}{{ a }}{{ b }}{% set (c, d) = [3, 4] %}{{ c }}{{ d }}",
    "{% for m in messages %}{% if loop.previtem and loop.previtem.role == m.role %}same{% endif %}{% if loop.nextitem is defined %}>{% endif %}{% endfor %}",
    "{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a is defined }} {% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q is defined }}",
    "{% for a in [1] %}{{ five }}{% set five = 6 %}{{ five }}{% endfor %}{{ five }}",
    "{{ loop }}|{% for x in [1] %}{{ loop is defined }}{% endfor %}",
    "{% do numbers.append(1) %}",
    "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }} {% set j = joiner(',') %}{{ j() }}{{ j() }}",
)
cases(
    "iterators",
    "{% set it = numbers | select('odd') %}{{ it | list }} {{ it | list }}",
    "{% if messages | selectattr('role', 'equalto', 'nobody') %}always true{% endif %}",
    "{{ numbers | map('string') | length }}",
    "{{ (numbers | map('string') | list) | length }} {{ numbers | map('string') | first }}",
    "{{ numbers | map('string') | last }}",
    "{{ (numbers | select)[0] }}|",
    "{% for n in numbers | map('string') %}{{ loop.index }}/{{ loop.length }} {% endfor %}",
    "{% set v = record.values() %}{{ v | length }} {{ v | list | length }} {{ v | list | length }} {{ record.items() | first }}",
    "{% if record.items() %}some{% endif %}{% if {}.items() %}none{% endif %}",
    "{{ range(3) | length }} {{ range(3)[-1] }} {{ range(0) | list }} {{ 2 in range(3) }} {{ range(3) == range(0, 3) }}",
    "{% for n in numbers %}{% if n == 2 %}stop{% break %}{% endif %}{{ n }}{% if n == 1 %}-{% continue %}{% endif %}.{% endfor %}",
)
cases(
    "macros",
    "{% macro greet(name, mark='!') %}Hi {{ name }}{{ mark }}{% endmacro %}{{ greet('a') }} {{ greet('b', '?') }} {{ greet(mark='.', name='c') }} {{ greet() }}",
    "{% macro m(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(b=2) }}",
    "{% macro outer(x) %}{{ inner(x) }}{% endmacro %}{% macro inner(x) %}[{{ x }}]{% endmacro %}{{ outer(1) }}",
    "{% macro fact(n) %}{{ n if n < 2 else n * (fact(n - 1) | int) }}{% endmacro %}{{ fact(5) }}",
    "{% set g = 1 %}{% macro m() %}{{ g }}{{ later }}{% endmacro %}{% set g = 2 %}{% set later = 3 %}{{ m() }}",
    "{% macro m() %}{{ n is defined }}{% endmacro %}{% for n in [1] %}{{ m() }}{% endfor %}",
    "{% macro wrap(tag) %}<{{ tag }}>{{ caller() }}</{{ tag }}>{% endmacro %}{% call wrap('b') %}in {{ five }}{% endcall %}",
    "{% macro each(list) %}{% for x in list %}{{ caller(x) }}{% endfor %}{% endmacro %}{% call(x) each([1, 2]) %}<{{ x }}>{% endcall %}",
    "{% macro m(x) %}{% if x %}yes{% endif %}{% endmacro %}{{ m(1) | upper }} {{ m(0) | length }} {{ 'a' ~ m(true) }} {{ m.name }} {{ m.arguments }}",
    "{%- macro render_content(content) -%}{%- if content is string -%}{{- content -}}{%- else -%}{%- for part in content -%}{{- part.text -}}{%- endfor -%}{%- endif -%}{%- endmacro -%}{{ render_content(messages[5].content) }}|{{ render_content(messages[1].content) }}|",
    "{% macro m(x, y=x) %}{{ x }}{{ y }}{% endmacro %}{{ m(1) }}{{ m(1, 2) }}",
    "{% macro deep(v) %}{% if v is mapping %}{ {%- for k, w in v.items() %}{{ k }}:{{ deep(w) }}{{ ',' if not loop.last }}{% endfor -%} }{% elif v is sequence and v is not string %}[{% for w in v %}{{ deep(w) }}{{ ',' if not loop.last }}{% endfor %}]{% else %}{{ v | tojson }}{% endif %}{% endmacro %}{{ deep(record) }}",
    "{% macro m(args...) %}{% endmacro %}",
    "{% macro m() %}{% set inner = 1 %}{% endmacro %}{{ m() }}{{ inner is defined }}{{ m() is string }}",
)
cases(
    "whitespace",
    "a\n  {% if true %}\n  b\n  {% endif %}\n  c\n",
    "a \n {%- if true -%} \n b \n {%- endif -%} \n c",
    "a\n  {# note #}\n  b\n  {#- note -#}\n  c",
    "  {% set x = 1 %}\n{{ x }}\n\n",
    "{{ 1 }}\n{{ 2 }}\n",
    "{{ 1 -}}\n  {{ 2 }}  \n  {{- 3 }}",
    "x {%+ if true %}\n y {% endif +%}\n z",
    "  {%+ if true %}y{% endif +%}\n z",
    "{% raw %}{{ not }} {% touched %}{# here #}{% endraw %}|{%- raw -%}  a  {%- endraw -%}  |",
    "text {- not a tag -}\n and {-}\nmore",
    "  text\n\t{% if true %}x{% endif %}\t\n  y {% if true %}\n z{% endif %}",
    "line\r\n  {% if true %}\r\nb\r\n{% endif %}\r\nend\r\n",
    "{% if true %}\n\n{% endif %}x\n\n\n",
    "a{% if true %}   \n b{% endif %}",
    "{{ '  a  ' }}  \n{%- set y = 1 %}  \n z",
    "{% for n in [1, 2] %}\n{{ n }}\n{% endfor %}\ndone",
    "{% for n in [1, 2] -%}\n  {{ n }}\n{%- endfor %}",
    "{%- generation %}a {{ five }}{% endgeneration %}|{% generation -%}  b  {%- endgeneration %}",
    "x\n  {% generation %}\n  b\n  {% endgeneration %}\ny",
    "{% if true %}a{% else %}b{% endif %}{% if false %}a{% elif five == 5 %}c{% else %}b{% endif %}{% if missing %}a{% elif none %}b{% endif %}",
    "{# a {{ b }} {% c %} #}x{# multi\nline #}\ny",
    "{{- 'a' }} {{ 'b' -}} c {{+ 'd' }}",
    "\n\n{{ 'a' }}",
    "{%if true%}a{%endif%}{{'b'}}{{-'c'-}}",
    "a\u00a0\n{%- if true %}b{% endif -%}\u00a0\u3000c\ufeff",
    "{{ {'a': {'b': 1}}['a']['b'] }}{{ {'a': {}} }}",
    "x = {}\n{% if true %}{ {{ five }} }{% endif %}",
    "- item\n{{ -1 }}\n{%- if true %}-{% endif -%}\n-",
    "'quote {{ 'x' }} isn't {# it's #} closed\n",
    "{% if true %}\n    {{ 'x' }}\n{% endif %}\n    {% if true %} \n y\n    {% endif %}",
    "tab\t{% if true %}\ty{% endif %}\n \t {% if true %}z{% endif %}",
    "{% set s %}\n  line\n{% endset %}[{{ s }}]",
    "{{ 1 }}{#- a -#}   {{ 2 }}{# b #}\n{{ 3 }}",
)
cases(
    "errors",
    "{{ raise_exception('Roles must alternate') }}",
    "{% if messages[0].role != 'user' %}{{ raise_exception('First ' + messages[0].role) }}{% endif %}",
    "{% if false %}{{ raise_exception('never') }}{% endif %}fine",
    "{{ messages[99].role }}",
    "{{ five.nothing }}|{{ none_value.nothing is defined }}",
    "{{ five() }}",
    "{% if true %}unclosed",
    "{{ unclosed",
    "{% endif %}",
    "{{ 1 + }}",
    "{{ a b }}",
    "{% unknown %}",
    "{{ 'x }}",
    "{{ [1, 2 }}",
    "{{ 5 | upper }} {{ none | upper }} {{ [1] | upper }}",
    "{{ '5' | abs }}",
    "{{ range(1000000000) }}",
    "{{ range(200000) | list | length }}",
    "{{ [1, 2] | join(', ' ) }} {{ 5 | join }}",
    "{{ five | first }}",
)
cases(
    "time",
    "{{ strftime_now('%Y') | length }} {{ strftime_now('%d %b %Y') | length > 9 }} {{ strftime_now('%%') }} {{ strftime_now('plain') }}",
    "{{ strftime_now('%Y-%m-%d') == strftime_now('%Y') ~ '-' ~ strftime_now('%m') ~ '-' ~ strftime_now('%d') }}",
    "{% if strftime_now is defined %}{% set date_string = 'set' %}{% else %}{% set date_string = '26 Jul 2024' %}{% endif %}{{ date_string }}",
)
CASES["chat: ChatML"] = """{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.content is string %}
        {{- message.content | trim }}
    {%- else %}
        {%- for part in message.content %}
            {{- part.text }}
        {%- endfor %}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
CASES["chat: reasoning of the last turn only"] = """{%- set ns = namespace(last_user=-1) %}
{%- for message in messages %}
    {%- if message.role == 'user' %}{% set ns.last_user = loop.index0 %}{% endif %}
{%- endfor %}
{%- for message in messages[:-1] %}
    {%- set content = message.content if message.content is string else '' %}
    {%- set reasoning = '' %}
    {%- if message.reasoning_content is string %}
        {%- set reasoning = message.reasoning_content %}
    {%- elif '</think>' in content %}
        {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
    {%- endif %}
    {{- '[' ~ message.role ~ ']' }}
    {%- if message.role == 'assistant' and (loop.last or (not loop.last and reasoning)) %}
        {{- '<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
    {%- else %}
        {{- content }}
    {%- endif %}
    {%- if message.tool_calls %}
        {%- for tool_call in message.tool_calls %}
            {%- if (loop.first and content) or (not loop.first) %}{{- '\\n' }}{%- endif %}
            {%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}
            {{- '<tool_call>\\n{"name": "' + tool_call.name + '", "arguments": ' }}
            {%- if tool_call.arguments is string %}
                {{- tool_call.arguments }}
            {%- else %}
                {{- tool_call.arguments | tojson }}
            {%- endif %}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
    {%- endif %}
    {{- '\\n' }}
{%- endfor %}
{{- ns.last_user }}
"""
CASES["chat: instructions in brackets"] = """{%- if messages[0]['role'] == 'system' -%}
    {%- set system = messages[0]['content'].strip() -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{{ bos_token }}
{%- for message in loop_messages if message.role in ('user', 'assistant') -%}
    {%- if message.role == 'user' -%}
        {{ '[INST] ' + (system + '\\n\\n' if loop.first and system is defined else '') + (message.content if message.content is string else message.content | map(attribute='text') | join) + ' [/INST]' }}
    {%- else -%}
        {{ ' ' + message.content + eos_token }}
    {%- endif -%}
{%- endfor -%}
"""
CASES["chat: roles must alternate"] = """{% for message in messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{% endif %}
{% endfor %}"""
CASES["chat: tools as a typed listing"] = """{%- macro render_type(spec) -%}
    {%- if spec.type is iterable and spec.type is not string -%}
        {{- spec.type | join(' | ') -}}
    {%- elif spec.enum -%}
        {{- '"' + spec.enum | join('" | "') + '"' -}}
    {%- else -%}
        {{- spec.type -}}
    {%- endif -%}
{%- endmacro -%}
namespace functions {
{% for tool in tools %}
    {%- set function = tool.function %}
// {{ function.description }}
type {{ function.name }} = (_: {
{% for name, spec in function.parameters.properties.items() %}
    {%- if spec.description %}
// {{ spec.description }}
    {% endif %}
{{ name }}{{ '?' if name not in (function.parameters.required or []) }}: {{ render_type(spec) }},
{%- if spec.default is defined %} // default: {{ spec.default }}{% endif %}

{% endfor %}
}) => any;
{% endfor %}
}"""
CASES["chat: tools in Python's words"] = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- if not tools is defined %}{% set tools = none %}{% endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|header|>system<|end|>\\n\\n" }}
{%- if builtin_tools is defined or tools is not none %}{{- "Environment: ipython\\n" }}{% endif %}
{%- if builtin_tools is defined %}
    {{- "Tools: " + builtin_tools | reject('equalto', 'code_interpreter') | join(", ") + "\\n\\n" }}
{%- endif %}
{{- "Today Date: " + date_string + "\\n\\n" }}
{%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\\n\\n" }}{%- endfor %}
{{- system_message }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|header|>' + message['role'] + '<|end|>\\n\\n' + (message['content'] | string) | trim + '<|eot|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls | length == 1 %}{{- raise_exception("One call at a time") }}{%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- tool_call.name + ".call(" }}
        {%- for arg_name, arg_val in tool_call.arguments | items %}
            {{- arg_name + '="' ~ arg_val ~ '"' }}{%- if not loop.last %}{{- ", " }}{%- endif %}
        {%- endfor %}
        {{- ")" }}
    {%- else %}
        {%- if message.content is mapping or message.content is iterable %}{{- message.content | tojson }}{%- else %}{{- message.content }}{%- endif %}
    {%- endif %}
{%- endfor %}
"""
CASES["chat: parameters as tags"] = """{% macro render_extra_keys(json_dict, handled_keys) %}
    {%- if json_dict is mapping %}
        {%- for json_key in json_dict if json_key not in handled_keys %}
            {%- if json_dict[json_key] is mapping or (json_dict[json_key] is sequence and json_dict[json_key] is not string) %}
                {{- '\\n<' ~ json_key ~ '>' ~ (json_dict[json_key] | tojson | safe) ~ '</' ~ json_key ~ '>' }}
            {%- else %}
                {{- '\\n<' ~ json_key ~ '>' ~ (json_dict[json_key] | string) ~ '</' ~ json_key ~ '>' }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
{% endmacro %}
{%- for tool in tools %}
    {%- if tool.function is defined %}{%- set tool = tool.function %}{%- endif %}
    {{- '<function>\\n<name>' ~ tool.name ~ '</name>' }}
    {%- if tool.description is defined %}{{- '\\n<description>' ~ (tool.description | trim) ~ '</description>' }}{%- endif %}
    {%- for param_name, param_fields in tool.parameters.properties | items %}
        {{- '\\n<parameter>' ~ param_name }}
        {{- render_extra_keys(param_fields, ['description']) }}
        {{- '\\n</parameter>' }}
    {%- endfor %}
    {{- render_extra_keys(tool.parameters, ['type', 'properties']) }}
    {{- '\\n</function>' }}
{%- endfor %}
{%- for message in messages if message.tool_calls is defined and message.tool_calls is iterable and message.tool_calls | length > 0 %}
    {%- for call in message.tool_calls %}
        {%- for args_name, args_value in call.function.arguments | items %}
            {{- '\\n<parameter=' + args_name + '>\\n' }}
            {%- set args_value = args_value | tojson | safe if args_value is mapping or (args_value is sequence and args_value is not string) else args_value | string %}
            {{- args_value }}
        {%- endfor %}
    {%- endfor %}
{%- endfor %}
"""
CASES["chat: visible text of parts"] = """{%- macro visible_text(content) -%}
    {%- if content is string -%}
        {{- content }}
    {%- elif content is iterable and content is not mapping -%}
        {%- for item in content -%}
            {%- if item is mapping and item.type == 'text' -%}{{- item.text }}
            {%- elif item is string -%}{{- item }}{%- endif -%}
        {%- endfor -%}
    {%- else -%}{{- content }}{%- endif -%}
{%- endmacro -%}
{%- for m in messages -%}
    {%- if m.role == 'user' -%}<|user|>
{{ visible_text(m.content) }}
{{- '/nothink' if (enable_thinking is defined and not enable_thinking and not visible_text(m.content).endswith("/nothink")) else '' -}}
    {%- elif m.role == 'assistant' -%}<|assistant|>
        {%- if m.content.strip() -%}{{ '\\n' + m.content.strip() }}{%- endif -%}
        {% if m.tool_calls %}
            {% for tc in m.tool_calls %}
{{ '\\n<tool_call>' + tc.function.name }}
{% set _args = tc.function.arguments %}
{% for k, v in _args.items() %}
<arg_key>{{ k }}</arg_key>
<arg_value>{{ v | tojson(ensure_ascii=False) if v is not string else v }}</arg_value>
{% endfor %}
</tool_call>{% endfor %}
        {% endif %}
    {%- elif m.role == 'tool' -%}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}{{- '<|observation|>' }}{%- endif %}
        {{- '\\n' + m.content }}
    {%- endif -%}
{%- endfor -%}
{{- '<|assistant|>' if add_generation_prompt -}}
"""
CASES["chat: generation blocks"] = """{% for message in messages %}
{% if message.role == 'assistant' %}
{{ '<|assistant|>' }}{% generation %}{{ message.content + eos_token }}{% endgeneration %}
{% else %}
{{ '<|' + message.role + '|>' + (message.content | string) }}
{% endif %}
{% endfor %}"""
CASES["chat: defaults and thinking switches"] = (
    """{%- if enable_thinking is not defined %}{% set enable_thinking = true %}{% endif %}
{%- set reasoning_mode = "/think" if enable_thinking else "/no_think" %}
{%- set custom = (system_message | default('')).replace("/no_think", "").replace("/think", "").rstrip() %}
{{- reasoning_mode }}|{{ custom }}|{{ (documents or []) | length }}|{{ documents is none }}|{{ xml_tools is defined }}
{%- if messages and messages[-1].role == 'user' and messages[-1]['content'] is not string %} parts{% endif %}
""",
    {"enable_thinking": False, "system_message": "Be kind. /no_think \n"},
)


DATES = [datetime(2026, 1, 5, 0, 8, 9), datetime(2024, 12, 31, 23, 59, 1, 120000)]
DIRECTIVES = ["%Y-%m-%d", "%d %b %Y", "%B %d, %Y", "%A %a %j %w %u", "%I:%M %p", "%H:%M:%S.%f", "%y %e %D %F %T", "%c|%x|%X", "%-d/%-m/%-H", "100%%"]


def run():
    made = environment()
    results = []
    for name, case in CASES.items():
        template, extra = case if isinstance(case, tuple) else (case, {})
        entry = {"name": name, "template": template}
        if extra:
            entry["variables"] = extra
        try:
            entry["expected"] = made.from_string(template).render(**{**VARIABLES, **extra})
        except Exception as error:  # whatever goes wrong in a template
            entry["error"] = f"{type(error).__name__}: {error}"
        results.append(entry)
    dates = [
        {"date": date.isoformat(), "format": format, "expected": date.strftime(format)}
        for date in DATES
        for format in DIRECTIVES
    ]
    return [{"jinja2": jinja2.__version__, "variables": VARIABLES}, *results, *dates]


def field_chats():
    """Chats of many forms; messages are as transformers gives them to templates, without nulls, reasoning under both names."""

    def call(number):
        arguments = {"city": "Zürich", "days": 3, "exact": True, "f": 1.5, "l": [1, "a", None], "o": {"x": 1}}
        return {"id": f"call1234{number}", "type": "function", "function": {"name": "get_weather", "arguments": arguments}}

    question = {"role": "user", "content": "Is it raining?"}
    calls = {"role": "assistant", "content": "", "tool_calls": [call(0), call(1)], "thinking": "hm", "reasoning_content": "hm"}
    results = [{"role": "tool", "name": "get_weather", "tool_call_id": f"call1234{n}", "content": '{"r": 1}'} for n in range(2)]
    thought = [{"role": "assistant", "content": f"<think>\nSo {n}.\n</think>\n\n{n}."} for n in range(2)]
    parts = [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]
    return [
        [{"role": "user", "content": "Hi <b> 'q' \"d\"\n"}],
        [{"role": "system", "content": " Be brief. "}, question, {"role": "assistant", "content": "\n  No.\n"}, question],
        [question, thought[0], question, thought[1]],
        [question, {"role": "assistant", "content": "a", "thinking": "so\n", "reasoning_content": "so\n"}],
        [question, {**calls, "tool_calls": [call(0)]}, results[0], {"role": "assistant", "content": "Yes."}, question],
        [question, calls, *results],
        [{"role": "user", "content": parts}],
        [{"role": "assistant", "content": "starts"}, {"role": "assistant", "content": "twice"}],
    ]


def field(folder):
    made = environment()
    for path in sorted(pathlib.Path(folder).rglob("*.jinja")):
        template = path.read_text(encoding="utf-8")
        for number, messages in enumerate(field_chats()):
            for tools in (None, [WEATHER]):
                for prompt in (False, True):
                    variables = {"messages": messages, "tools": tools, "add_generation_prompt": prompt}
                    name = f"{path.name} {number} {'tools' if tools else 'bare'} {'prompt' if prompt else 'whole'}"
                    entry = {"name": name, "template": template, "variables": variables}
                    try:
                        tokens = {"bos_token": "<s>", "eos_token": "</s>"}
                        entry["expected"] = made.from_string(template).render(**variables, documents=None, **tokens)
                    except Exception as error:  # whatever goes wrong in a template
                        entry["error"] = f"{type(error).__name__}: {error}"
                    yield entry


def main():
    if "--field" in sys.argv[1:]:
        folder, file = sys.argv[2:4]
        lines = [{"jinja2": jinja2.__version__, "variables": {"documents": None, "bos_token": "<s>", "eos_token": "</s>"}}]
        lines += field(folder)
        pathlib.Path(file).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        print(f"{len(lines) - 1} renderings")
        return
    text = "".join(json.dumps(line) + "\n" for line in run())
    if "--write" in sys.argv[1:]:
        GOLDEN.write_text(text, encoding="utf-8")
    elif GOLDEN.read_text(encoding="utf-8") != text:
        sys.exit(f"{GOLDEN.name} differs from what jinja2 {jinja2.__version__} renders; run with --write and look")
    print(f"{len(CASES)} templates")


if __name__ == "__main__":
    main()
