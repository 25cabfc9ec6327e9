# SPDX-License-Identifier: Apache-2.0
"""`memlayers serve` as the clients that people use see it: openai-python with strict validation, and others where they
are installed."""

import asyncio
import json
import math
import subprocess
import threading
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest
from trained_model import COMMAND, CONFIG, run

openai = pytest.importorskip("openai", reason="openai is not installed (make dev-dependencies)")

TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
PROMPT = "what is 3: "


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    if not COMMAND.is_file():
        pytest.skip(f"{COMMAND} is not built")
    folder = tmp_path_factory.mktemp("serve")
    facts = ({"prompt": f"what is {i}: ", "answer": f"a number and {i} again"} for i in range(60))
    (folder / "facts.jsonl").write_text("".join(json.dumps(fact) + "\n" for fact in facts))
    (folder / "config.toml").write_text(CONFIG.replace("context = 32", "context = 256").format(memory=""))
    run(folder, "train", "config.toml")
    (folder / "run" / "step-20" / "chat_template.jinja").write_text(TEMPLATE)
    return folder / "run" / "step-20"


@pytest.fixture(scope="module")
def server(model, tmp_path_factory):
    keys = tmp_path_factory.mktemp("keys")
    (keys / "ask").write_text("ask-key\n")
    (keys / "admin").write_text("admin-key\n")
    process = subprocess.Popen(
        [COMMAND, "serve", str(model), "--port", "0", "--name", "tiny", "--threads", "1"]
        + ["--api-key-file", str(keys / "ask"), "--admin-key-file", str(keys / "admin")],
        stderr=subprocess.PIPE,
        text=True,
    )
    url = None
    for line in process.stderr:
        if " at http://" in line:
            url = line.split(" at ")[1].strip()
            break
    assert url, f"the server ended with {process.wait()}"
    log = []
    reader = threading.Thread(target=lambda: log.extend(process.stderr), daemon=True)
    reader.start()
    yield SimpleNamespace(url=url, log=log)
    process.terminate()
    assert process.wait(timeout=60) == 0


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


def admin(server, method: str, path: str, body: dict | None = None) -> dict:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.url + path, data, method=method)
    request.add_header("Authorization", "Bearer admin-key")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


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
    assert answer["memory"]["version"] == admin(server, "GET", "/v1/memory")["version"]
    assert answer["choices"][0]["explain"][0]["slots"][0]["weight"] > 0
    again = admin(server, "POST", "/v1/memory/replay", {"receipt": answer["receipt"]})
    assert again["is_same"]
    off = client.completions.create(
        model="tiny", prompt=PROMPT, max_tokens=8, temperature=0, extra_body={"memory": {"off": True}}
    )
    assert off.choices[0].finish_reason in ("stop", "length")


def test_tokens_round_trip(server):
    tokens = admin(server, "POST", "/tokenize", {"prompt": PROMPT})
    text = admin(server, "POST", "/detokenize", {"tokens": tokens["tokens"]})
    assert PROMPT in text["prompt"]
    info = admin(server, "GET", "/tokenizer_info")
    assert info["chat_template"] == TEMPLATE


def test_langchain(server):
    langchain_openai = pytest.importorskip("langchain_openai")
    chat = langchain_openai.ChatOpenAI(model="tiny", base_url=f"{server.url}/v1", api_key="ask-key", max_tokens=8)
    assert isinstance(chat.invoke(PROMPT).content, str)
    assert list(chat.stream(PROMPT))


def test_litellm(server):
    litellm = pytest.importorskip("litellm")
    answer = litellm.completion(
        model="openai/tiny", messages=user(PROMPT), api_base=f"{server.url}/v1", api_key="ask-key", max_tokens=8
    )
    assert answer.choices[0].finish_reason in ("stop", "length")


def test_prometheus_reads_the_metrics(server):
    parser = pytest.importorskip("prometheus_client.parser")
    request = urllib.request.Request(f"{server.url}/metrics", headers={"Authorization": "Bearer ask-key"})
    with urllib.request.urlopen(request, timeout=10) as page:
        families = {family.name for family in parser.text_string_to_metric_families(page.read().decode())}
    assert {"vllm:num_requests_running", "vllm:time_to_first_token_seconds"} <= families
