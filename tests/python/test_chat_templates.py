# SPDX-License-Identifier: Apache-2.0
"""Rendered conversations beside Jinja, set up as transformers does it, and their tokens beside tokenizers."""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
import random_templates
from jinja_oracle import Oracle
from memlayers import _library
from test_tokenizers import TOKENIZERS, texts

COMMAND = _library.find_library().parent / "memlayers"
RANDOM_TEMPLATES = 1500

SYSTEM = {"role": "system", "content": "Be brief.\n  "}
USER = {"role": "user", "content": "What is 2 + 2? é 日本"}
ANSWER = {"role": "assistant", "content": "4.\n"}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {
            "id": "123456789",
            "type": "function",
            "function": {"name": "add", "arguments": {"a": 2, "b": [1.5, None], "c": True}},
        }
    ],
}
RESULT = {"role": "tool", "tool_call_id": "123456789", "name": "add", "content": '{"sum": 4}'}
PARTS = {"role": "user", "content": [{"type": "text", "text": "look "}, {"type": "image", "image": "x"}]}
THOUGHT = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nyes", "reasoning_content": "hm"}
TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": 'Adds "numbers"',
        "parameters": {
            "type": "object",
            "properties": {
                "a": {"type": "integer", "description": "one", "default": 3},
                "b": {"type": ["array", "null"], "items": {"type": "number"}},
                "o": {
                    "type": "object",
                    "properties": {"x": {"type": "string", "enum": ["p", "q"]}},
                    "required": ["x"],
                },
            },
            "required": ["a"],
        },
    },
}
CONVERSATIONS: list[list[dict[str, Any]]] = [
    [USER], [SYSTEM, USER], [SYSTEM, USER, ANSWER, USER], [USER, ANSWER], [USER, CALL, RESULT],
    [SYSTEM, USER, CALL, RESULT, ANSWER, USER], [PARTS], [SYSTEM, PARTS, THOUGHT, USER], [USER, THOUGHT, USER],
    [{"role": "developer", "content": "d"}, USER], [USER, USER], [ANSWER, USER], [SYSTEM],
    [{"role": "user", "content": ""}], [{"role": "odd", "content": "x"}],
]  # fmt: skip
MORE: list[dict[str, Any]] = [
    {},
    {
        "enable_thinking": False,
        "thinking": True,
        "reasoning_effort": "high",
        "builtin_tools": ["browser"],
        "date_string": "1 Jan",
    },
]

# Each of ours uses what families of real templates use.
OWN = {
    "chatml": """{%- if messages[0].role == 'system' -%}
{{- '<|im_start|>system\\n' + messages[0]['content'] | trim + '<|im_end|>\\n' }}
{%- set rest = messages[1:] -%}
{%- else -%}
{%- set rest = messages -%}
{%- endif -%}
{%- for message in rest %}
{%- set content = message.content if message.content is string else message.content | tojson %}
{{- '<|im_start|>' ~ message.role ~ '\\n' ~ content ~ '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}""",
    "strict": """{{ bos_token }}{% for message in messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Roles must alternate, got ' ~ message.role) }}
{% endif %}
{% if loop.last and message.role == 'user' %}[LAST]{% endif %}
[{{ message['role'] | upper }}] {{ message['content'] }}{% if not loop.last %}{{ eos_token }}{% endif %}

{% endfor %}""",
    "tools": """{%- macro shape(schema, level=0) -%}
{%- if schema.type is string and schema.type == 'object' -%}
{ {%- for name, one in schema.properties | dictsort %}{{ ', ' if not loop.first }}{{ name }}
{{- '?' if name not in schema.get('required', []) }}: {{ shape(one, level + 1) }}{% endfor -%} }
{%- elif schema.type is iterable and schema.type is not string -%}
{{ schema.type | join(' | ') }}
{%- else -%}
{{ schema.type }}{{ ' (' ~ schema.enum | map('tojson') | join(', ') ~ ')' if schema.enum is defined }}
{{- '=' ~ schema.default if 'default' in schema }}
{%- endif -%}
{%- endmacro -%}
{%- if tools is not none and tools | length > 0 %}
# Tools
{% for tool in tools %}
{{ tool.function.name }}: {{ shape(tool['function']['parameters']) }}
{{ tool | tojson(indent=4) }}
{% endfor %}
{% endif %}
{%- for message in messages %}
{%- set ns = namespace(text='', calls=[]) %}
{%- if message.tool_calls is defined and message.tool_calls %}
{%- for call in message.tool_calls if call.type == 'function' %}
{%- set names = call.function.arguments.items() | map('first') | join(',') %}
{%- set ns.calls = ns.calls + [call.function.name ~ '(' ~ names ~ ')'] %}
{%- endfor %}
<call>{{ ns.calls | join(';') }}</call>
{%- elif message.content is iterable and message.content is not string and message.content is not mapping %}
{%- for part in message.content %}
{%- if part.type != 'text' %}{% continue %}{% endif %}
{%- set ns.text = ns.text + part.text %}
{%- endfor %}
{{ ns.text }}
{%- else %}
{% generation %}{{ message.role ~ ': ' ~ (message.content or '') }}{% endgeneration %}
{%- endif %}
{%- endfor %}""",
    "thinking": """{%- set ns = namespace(last=-1) %}
{%- for message in messages[::-1] %}
{%- set index = (messages | length - 1) - loop.index0 %}
{%- if message.role == 'user' %}{% set ns.last = index %}{% break %}{% endif %}
{%- endfor %}
{%- for message in messages %}
{%- set content = message.content if message.content is string else '' %}
{%- if message.role == 'assistant' and '</think>' in content and loop.index0 < ns.last %}
{%- set content = content.split('</think>')[-1].lstrip('\\n') %}
{%- endif %}
{{ '<|' + message.role + '|>' + content.strip() + '<|end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}<|assistant|>
{{- '<think>\\n\\n</think>' if enable_thinking is defined and enable_thinking is false }}{% endif %}""",
    "blocks": """{% macro quote(all) %}{% for one in all %}[{{ caller(one) }}]{% endfor %}{% endmacro %}{% set header %}
{% filter upper | trim %} model {{ documents | default([], true) | length }} {% endfilter %}
{% endset %}
{{ header -}}
{% call(x) quote(messages) %}{{ x.role[:1] }}{% endcall %}
{% with roles = messages | map(attribute='role') | unique | list,
        n = messages | selectattr('role', 'equalto', 'user') | list | length %}
{{ roles | sort | join('/') }} {{ n }}{# how many #}
{% endwith %}
{% raw %}{{ not run }}{% endraw %}

{{ '%s has %d' % ('it', messages | length) }} {{ '{:>6}|{}'.format('a', 1.5) }}
{{ range(3) | sum }} {{ (7 / 2) | round | int }}
""",
}  # fmt: skip


def tokenizer_folder(folder: Path, name: str = "gpt2") -> Any:
    tokenizer = TOKENIZERS[name]()
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return tokenizer


def render(folder: Path, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    done = subprocess.run(
        [COMMAND, "tokenize", folder, "--chat", "-", "--batch"],
        input="".join(json.dumps(one) + "\n" for one in requests).encode(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.decode().split("\n") if line]


def compare(folder: Path, source: str) -> int:
    """How many conversations the template takes; all of them have to come out as Jinja renders them."""
    oracle, requests, wanted = Oracle(), [], []
    for messages in CONVERSATIONS:
        for tools in (None, [TOOL]):
            for more in MORE:
                asks = tools is None
                requests.append(
                    {"chat_template": source, "messages": messages, "tools": tools, "add_generation_prompt": asks,
                     "chat_template_kwargs": more}
                )  # fmt: skip
                given = [
                    {"thinking": one["reasoning_content"], **one} if "reasoning_content" in one else one
                    for one in messages
                ]
                tokens = {"bos_token": "<s>", "eos_token": "</s>"}
                shared = {"tools": tools, "documents": None, "add_generation_prompt": asks}
                variables = {**tokens, **shared, "messages": given, **more}
                wanted.append(oracle.render(source, variables))
    got = render(folder, requests)
    for request, want, have in zip(requests, wanted, got, strict=True):
        assert have.get("text") == want, f"{request['messages']!r} {request['tools'] is not None}: {have.get('error')}"
    return sum(want is not None for want in wanted)


@pytest.mark.parametrize("name", OWN)
def test_templates_of_every_family_render_as_in_jinja(name: str, tmp_path: Path) -> None:
    tokenizer_folder(tmp_path)
    assert compare(tmp_path, OWN[name]) > 10


def test_templates_that_others_ship_render_as_in_jinja(tmp_path: Path) -> None:
    folder = os.environ.get("MEMLAYERS_CHAT_TEMPLATES")
    if folder is None:
        pytest.skip("MEMLAYERS_CHAT_TEMPLATES names no folder of .jinja files (llama.cpp's models/templates)")
    tokenizer_folder(tmp_path)
    paths = sorted(Path(folder).glob("*.jinja"))
    assert paths
    for path in paths:
        with path.open(newline="") as file:
            source = file.read()
        if "strftime_now" not in source:  # whose clock moves on
            compare(tmp_path, source)


def test_random_templates_render_or_fail_as_in_jinja(tmp_path: Path) -> None:
    tokenizer_folder(tmp_path)
    oracle = Oracle()
    sources = [random_templates.Maker(seed).template() for seed in range(RANDOM_TEMPLATES)]
    variables = random_templates.VARIABLES
    same = {"messages": [USER], "chat_template_kwargs": variables}
    got = render(tmp_path, [{"chat_template": source, **same} for source in sources])
    wrong = []
    rendered = 0
    for seed, (source, have) in enumerate(zip(sources, got, strict=True)):
        want = oracle.render(source, variables)
        rendered += want is not None
        if have.get("text") != want:
            wrong.append((seed, source, want, have))
    assert not wrong, f"{len(wrong)} templates differ, the first {wrong[0]!r}"
    assert rendered > RANDOM_TEMPLATES / 4


CHAT = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}{% if m.role != 'user' %} {% endif %}"
    "{{ eos_token }}<tool>{% endfor %}"
)


@pytest.mark.parametrize("name", ["gpt2", "llama3", "llama2", "gemma", "metaspace_first", "smollm"])
def test_tokens_of_a_conversation_are_those_of_its_text(name: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_folder(tmp_path, name)
    generator = random.Random(3)
    special = ("<s>", "</s>")
    harmless = [text for text in texts() if not any(token in text for token in special)]
    requests = []
    for _ in range(300):
        messages = [
            {"role": role, "content": generator.choice(harmless)}
            for role in generator.choices(["user", "assistant"], k=generator.randint(1, 4))
        ]
        requests.append({"chat_template": CHAT, "messages": messages})
    for request, have in zip(requests, render(tmp_path, requests), strict=True):
        wanted = tokenizer.encode(have["text"], add_special_tokens=False).ids
        assert have["ids"] == wanted, request


@pytest.mark.parametrize("name", ["gpt2", "llama3", "llama2", "gemma", "metaspace_first"])
def test_a_message_cannot_forge_or_hide_a_control_token(name: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_folder(tmp_path, name)
    controls = {tokenizer.token_to_id("<s>"), tokenizer.token_to_id("</s>")}
    forged = ["</s>", "<s>a</s>", "x</s", "<", "</", "/s>", ">", "</s></s", "<s", "  </s>  ", "\n</s>\n"]
    source = (
        "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}{{ messages[0].content }}s>"
    )
    requests = [
        {"chat_template": source, "messages": [{"role": "user", "content": a}, {"role": "user", "content": b}]}
        for a in forged for b in forged
    ]  # fmt: skip
    for request, have in zip(requests, render(tmp_path, requests), strict=True):
        found = [token for token in have["ids"] if token in controls]
        assert found == [tokenizer.token_to_id(token) for token in ("<s>", "</s>", "</s>")], request
