# SPDX-License-Identifier: Apache-2.0
"""`memlayers serve` as openai-python sees it, with strict validation. Other clients: test_serve_clients.py."""

import asyncio
import json
import math
import urllib.request
from pathlib import Path

import pytest
from served import PROMPT, TEMPLATE, Served, make_model

openai = pytest.importorskip("openai", reason="openai is not installed (make dev-dependencies)")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("serve"))


@pytest.fixture(scope="module")
def server(model, tmp_path_factory):
    running = Served(model, keys=tmp_path_factory.mktemp("keys"))
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(
        base_url=f"{server.url}/v1", api_key="ask-key", max_retries=0, _strict_response_validation=True
    )


@pytest.fixture(scope="module")
def loose(server):
    """For streams of completions: finish_reason is null in all events but the last, as OpenAI's server has it; openai's
    type of them does not know that."""
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="ask-key", max_retries=0)


def user(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def test_models(client):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "memlayers"


def test_completions_and_their_streams_say_the_same(client, loose):
    asked = {"model": "tiny", "prompt": [PROMPT, "what is 4: "], "max_tokens": 12, "temperature": 0, "n": 2}
    whole = client.completions.create(**asked)
    assert [choice.index for choice in whole.choices] == [0, 1, 2, 3]
    texts, reasons, usage = [""] * 4, [None] * 4, None
    for chunk in loose.completions.create(**asked, stream=True, stream_options={"include_usage": True}):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
        usage = chunk.usage or usage
    assert texts == [choice.text for choice in whole.choices]
    assert reasons == [choice.finish_reason for choice in whole.choices]
    assert usage.total_tokens == whole.usage.total_tokens


def test_chat_and_its_streams_say_the_same(client):
    asked = {"model": "tiny", "messages": user(PROMPT), "max_completion_tokens": 12, "seed": 5}
    asked.update(logprobs=True, top_logprobs=3)
    whole = client.chat.completions.create(**asked).choices[0]
    parts, logprobs = [], []
    for chunk in client.chat.completions.create(**asked, stream=True):
        parts.append(chunk.choices[0].delta.content or "")
        if chunk.choices[0].logprobs:
            logprobs += chunk.choices[0].logprobs.content
    assert "".join(parts) == whole.message.content
    assert logprobs == whole.logprobs.content
    assert all(len(token.top_logprobs) == 3 and token.bytes for token in logprobs)


def test_the_stream_helper_of_chat(client):
    asked = {"model": "tiny", "messages": user(PROMPT), "max_completion_tokens": 8}
    schema = {"type": "json_schema", "json_schema": {"name": "b", "schema": {"type": "boolean"}}}
    with client.chat.completions.stream(**asked, response_format=schema) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "content.done"} <= kinds
    assert final.choices[0].finish_reason == "stop"
    assert final.choices[0].message.content in ("true", "false")
    with client.chat.completions.stream(**asked, extra_body={"ignore_eos": True}) as stream:
        with pytest.raises(openai.LengthFinishReasonError):
            stream.get_final_completion()


def test_many_at_once_have_the_answers_that_they_have_alone(server):
    client = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="ask-key")

    async def ask(i: int) -> str:
        answer = await client.completions.create(
            model="tiny", prompt=f"what is {i % 5}: ", max_tokens=16, temperature=0
        )
        return answer.choices[0].text

    async def all_of(count: int) -> list[str]:
        return await asyncio.gather(*(ask(i) for i in range(count)))

    async def one_by_one() -> list[str]:
        return [await ask(i) for i in range(5)]

    async def both() -> tuple[list[str], list[str]]:
        return await all_of(30), await one_by_one()

    together, alone = asyncio.run(both())
    assert together == alone * 6


def test_echo_gives_what_lm_eval_reads(client):
    # Raw: the first token has no probability, which OpenAI's server says as null and openai's types do not know.
    raw = client.completions.with_raw_response.create(
        model="tiny", prompt=PROMPT, max_tokens=1, temperature=0, logprobs=1, echo=True
    )
    lists = json.loads(raw.text)["choices"][0]["logprobs"]
    tokens, owns, tops = lists["tokens"], lists["token_logprobs"], lists["top_logprobs"]
    assert len(tokens) == len(owns) == len(tops)
    assert owns[0] is None
    for token, own, top in zip(tokens[1:], owns[1:], tops[1:], strict=True):
        assert top[token] == own
        assert math.isfinite(own)


def test_json_answers_are_json(client):
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}}, "required": ["n"]}
    schema["additionalProperties"] = False
    answer = client.chat.completions.create(
        model="tiny",
        messages=user(PROMPT),
        max_completion_tokens=100,
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": schema}},
    ).choices[0]
    assert answer.finish_reason == "stop"
    assert 0 <= json.loads(answer.message.content)["n"] <= 9


def test_errors_are_the_exceptions_of_their_status(client, server):
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="tiny", messages=user("a"), temperature=3)
    assert refused.value.param == "temperature"
    assert isinstance(refused.value.code, str)
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model="tiny", prompt="what is " * 300)
    assert refused.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(
            model="tiny", messages=user("a"), tools=[{"type": "function", "function": {"name": "f"}}]
        )
    assert refused.value.param == "tools"
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="other", prompt="a")
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="tiny", input="a")
    stranger = openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        stranger.models.list()


def test_a_client_that_leaves_ends_its_sequence(loose, server):
    with loose.completions.create(
        model="tiny", prompt=PROMPT, max_tokens=200, stream=True, extra_body={"ignore_eos": True}
    ) as stream:
        next(iter(stream))
    for _ in range(600):
        health = json.load(urllib.request.urlopen(f"{server.url}/health", timeout=10))
        if health["running"] == 0:
            return
    pytest.fail("the sequence goes on without its client")


def test_answers_say_their_version_and_can_be_made_again(client, server):
    raw = client.completions.with_raw_response.create(
        model="tiny", prompt=PROMPT, max_tokens=8, extra_body={"receipt": True, "explain": True, "ignore_eos": True}
    )
    answer = json.loads(raw.text)
    assert raw.headers["x-memlayers-pool-version"] == str(answer["memory"]["version"])
    assert answer["memory"]["version"] == server.json("GET", "/v1/memory")["version"]
    assert answer["choices"][0]["explain"][0]["slots"][0]["weight"] > 0
    again = server.json("POST", "/v1/memory/replay", {"receipt": answer["receipt"]})
    assert again["is_same"]
    off = client.completions.create(
        model="tiny", prompt=PROMPT, max_tokens=8, temperature=0, extra_body={"memory": {"off": True}}
    )
    assert off.choices[0].finish_reason in ("stop", "length")


def test_tokens_round_trip(server):
    tokens = server.json("POST", "/tokenize", {"prompt": PROMPT})
    text = server.json("POST", "/detokenize", {"tokens": tokens["tokens"]})
    assert PROMPT in text["prompt"]
    info = server.json("GET", "/tokenizer_info")
    # lm-eval asks for the ids of control tokens, and of conversations that it wrote itself, so.
    for name in ("prompt", "content"):
        asked = {name: info["eos_token"], "add_special_tokens": False}
        assert server.json("POST", "/tokenize", asked)["tokens"] == [info["eos_token_id"]]
        assert server.json("POST", "/tokenize", {**asked, "parse_special": False})["count"] > 1
    assert info["chat_template"] == TEMPLATE


def test_prometheus_reads_the_metrics(server):
    parser = pytest.importorskip("prometheus_client.parser")
    request = urllib.request.Request(f"{server.url}/metrics", headers={"Authorization": "Bearer ask-key"})
    with urllib.request.urlopen(request, timeout=10) as page:
        families = {family.name for family in parser.text_string_to_metric_families(page.read().decode())}
    assert {"vllm:num_requests_running", "vllm:time_to_first_token_seconds"} <= families
