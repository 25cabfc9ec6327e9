# SPDX-License-Identifier: Apache-2.0
"""Clients that people use, unchanged, with `memlayers serve`. Each is skipped where it is not installed, and none of
them is in CI, for what they bring (in MB, with all they need): langchain-openai 111, litellm 356, llm 79, lm-eval 747.

  python -m pip install --target FOLDER langchain-openai    # and so on; a folder each, as they want other versions
  PYTHONPATH=python:FOLDER python -m pytest tests/python/test_serve_clients.py
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from served import ADMIN, ASK, PROMPT, Served, make_model

MESSAGES = [{"role": "user", "content": PROMPT}]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("clients"))


@pytest.fixture(scope="module")
def server(model, tmp_path_factory):
    running = Served(model, keys=tmp_path_factory.mktemp("keys"))
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def said(server) -> str:
    """The greedy answer that all of them are to have."""
    body = {"messages": MESSAGES, "max_tokens": 12, "temperature": 0}
    return server.json("POST", "/v1/chat/completions", body)["choices"][0]["message"]["content"]


# --- langchain-openai -------------------------------------------------------------------------------------------------


@pytest.fixture
def chat(server):
    langchain = pytest.importorskip("langchain_openai", reason="langchain-openai is not installed")
    return lambda **more: langchain.ChatOpenAI(
        **{"model": "tiny", "base_url": f"{server.url}/v1", "api_key": ASK, "max_tokens": 12, "temperature": 0} | more
    )


def test_langchain_answers_and_streams(chat, said):
    answer = chat().invoke(PROMPT)
    assert answer.content == said
    assert answer.usage_metadata["total_tokens"] > answer.usage_metadata["input_tokens"]
    assert answer.response_metadata["finish_reason"] in ("stop", "length")
    parts = list(chat(stream_usage=True).stream(PROMPT))
    assert "".join(part.content for part in parts) == said
    assert [part.usage_metadata for part in parts if part.usage_metadata] == [answer.usage_metadata]
    assert [each.content for each in chat().batch([PROMPT, PROMPT])] == [said, said]


def test_langchain_gets_logprobs_and_structures(chat):
    answer = chat(logprobs=True, top_logprobs=2).invoke(PROMPT)
    tokens = answer.response_metadata["logprobs"]["content"]
    assert all(len(token["top_logprobs"]) == 2 for token in tokens)
    schema = {
        "title": "Number",
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["n"],
        "additionalProperties": False,
    }
    made = chat(max_tokens=60).with_structured_output(schema, method="json_schema").invoke(PROMPT)
    assert 0 <= made["n"] <= 9


def test_langchain_completes(server):
    langchain = pytest.importorskip("langchain_openai", reason="langchain-openai is not installed")
    complete = langchain.OpenAI(
        model="tiny", base_url=f"{server.url}/v1", api_key=ASK, max_tokens=12, temperature=0, n=1, best_of=1
    )
    asked = {"prompt": PROMPT, "max_tokens": 12, "temperature": 0}
    text = server.json("POST", "/v1/completions", asked)["choices"][0]["text"]
    assert complete.invoke(PROMPT) == text
    assert "".join(complete.stream(PROMPT)) == text


# --- litellm ----------------------------------------------------------------------------------------------------------


def test_litellm(server, said, monkeypatch):
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # which it would fetch
    litellm = pytest.importorskip("litellm", reason="litellm is not installed")
    asked = {"api_base": f"{server.url}/v1", "api_key": ASK, "max_tokens": 12, "temperature": 0}
    answer = litellm.completion(model="openai/tiny", messages=MESSAGES, **asked)
    assert answer.choices[0].message.content == said
    assert answer.choices[0].finish_reason in ("stop", "length")
    chunks = list(litellm.completion(model="openai/tiny", messages=MESSAGES, stream=True, **asked))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == said
    text = litellm.text_completion(model="text-completion-openai/tiny", prompt=PROMPT, **asked)
    assert text.choices[0].text
    with pytest.raises(litellm.BadRequestError):
        litellm.completion(model="openai/tiny", messages=MESSAGES, **(asked | {"temperature": 9}))
    with pytest.raises(litellm.AuthenticationError):
        litellm.completion(model="openai/tiny", messages=MESSAGES, **(asked | {"api_key": "wrong"}))


# --- llm --------------------------------------------------------------------------------------------------------------


def test_llm(server, said, tmp_path):
    if importlib.util.find_spec("llm") is None:
        pytest.skip("llm is not installed")
    here = {"model_name": "tiny", "api_base": f"{server.url}/v1", "api_key_name": "ours"}
    models = [here | {"model_id": "ours", "supports_schema": True}, here | {"model_id": "text", "completion": True}]
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps(models))  # which is YAML as well

    def llm(*arguments: str) -> str:
        command = [sys.executable, "-m", "llm", *arguments, "--key", ASK]
        environment = os.environ | {"LLM_USER_PATH": str(tmp_path)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    asked = ["-o", "max_tokens", "12", "-o", "temperature", "0"]
    assert llm("-m", "ours", PROMPT, *asked).strip() == said.strip()  # as it streams
    assert llm("-m", "ours", PROMPT, *asked, "--no-stream").strip() == said.strip()
    assert llm("-m", "text", PROMPT, *asked)
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["n"],
        "additionalProperties": False,
    }
    answer = llm("-m", "ours", PROMPT, "--schema", json.dumps(schema), "-o", "max_tokens", "60")
    assert 0 <= json.loads(answer)["n"] <= 9


# --- lm-eval ----------------------------------------------------------------------------------------------------------

PAIRS = [
    ("what is 3: ", "a number and 3 again"),
    ("what is 41:", " a number"),
    ("what is 5: ", "zebra"),
    ("a", " b c d e f"),
    ("what is 8: a number and", " 8"),
    ("", "what is 9"),
]


@pytest.fixture
def lm_eval(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", ASK)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return pytest.importorskip("lm_eval", reason="lm-eval is not installed")


def of_lm_eval(kind: str, pairs: list, name: str = "loglikelihood") -> list:
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, pair, i, (name, i, 1)) for i, pair in enumerate(pairs)]


@pytest.mark.parametrize("tokenizer", ["remote", "huggingface"])
@pytest.mark.parametrize("batch", [1, 4])
def test_lm_eval_has_the_loglikelihoods_of_transformers(lm_eval, server, model, tokenizer, batch):
    import memlayers.hf  # noqa: F401  (transformers knows our models by it)
    from lm_eval.models.huggingface import HFLM
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    more = {"tokenizer": str(model)} if tokenizer == "huggingface" else {"auth_token": ASK}
    ours = LocalCompletionsAPI(
        model="tiny",
        base_url=f"{server.url}/v1/completions",
        tokenizer_backend=tokenizer,
        batch_size=batch,
        max_length=256,
        **more,
    )
    # local-completions puts no BOS before a text, hf would.
    theirs = HFLM(pretrained=str(model), device="cpu", dtype="float32", batch_size=1, add_bos_token=False)
    asked = of_lm_eval("loglikelihood", PAIRS)
    got = ours.loglikelihood(asked, disable_tqdm=True)
    wanted = theirs.loglikelihood(asked, disable_tqdm=True)
    for (pair, (number, greedy), (right, is_greedy)) in zip(PAIRS, got, wanted, strict=True):
        assert number == pytest.approx(right, abs=1e-3), pair
        assert greedy == is_greedy, pair
    texts = [(text,) for text in ("what is 3: a number and 3 again", "a b c")]
    rolling = of_lm_eval("loglikelihood_rolling", texts)
    sums = ours.loglikelihood_rolling(rolling, disable_tqdm=True)
    assert sums == pytest.approx(theirs.loglikelihood_rolling(rolling, disable_tqdm=True), abs=1e-3)


def test_lm_eval_generates_over_chat_and_completions(lm_eval, server, said):
    from lm_eval.models.openai_completions import LocalChatCompletion, LocalCompletionsAPI

    until = {"until": ["\n\n"], "max_gen_toks": 12, "temperature": 0}
    over_chat = LocalChatCompletion(model="tiny", base_url=f"{server.url}/v1/chat/completions")
    asked = of_lm_eval("generate_until", [(over_chat.apply_chat_template(MESSAGES), dict(until))], "generate_until")
    assert [text.strip() for text in over_chat.generate_until(asked, disable_tqdm=True)] == [said.strip()]
    url = f"{server.url}/v1/completions"
    ours = LocalCompletionsAPI(
        model="tiny", base_url=url, tokenizer_backend="remote", auth_token=ASK, max_length=256
    )
    asked = of_lm_eval("generate_until", [(PROMPT, dict(until)), ("a", dict(until))], "generate_until")
    same = {"max_tokens": 12, "temperature": 0, "stop": ["\n\n"], "add_special_tokens": False}
    texts = [server.json("POST", "/v1/completions", {"prompt": prompt, **same}) for prompt in (PROMPT, "a")]
    assert ours.generate_until(asked, disable_tqdm=True) == [text["choices"][0]["text"] for text in texts]


def test_lm_eval_s_task_over_the_command(lm_eval, server, tmp_path):
    rows = [{"question": f"what is {i}: ", "choices": [f"a number and {i} again", "zebra zebra"]} for i in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "ours.yaml").write_text(
        json.dumps(
            {
                "task": "ours",
                "dataset_path": "json",
                "dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.jsonl")}},
                "test_split": "test",
                "output_type": "multiple_choice",
                "doc_to_text": "{{question}}",
                "doc_to_choice": "{{choices}}",
                "doc_to_target": 0,
                "target_delimiter": "",
                "metric_list": [{"metric": "acc"}],
            }
        )
    )
    arguments = f"model=tiny,base_url={server.url}/v1/completions,tokenizer_backend=remote,max_length=256"
    arguments += f",auth_token={ASK}"
    command = [sys.executable, "-m", "lm_eval", "--model", "local-completions", "--model_args", arguments]
    command += ["--tasks", "ours", "--include_path", str(tmp_path), "--output_path", str(tmp_path / "out")]
    environment = os.environ | {"HF_HOME": str(tmp_path / "hf"), "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    (found,) = (tmp_path / "out").rglob("results_*.json")
    assert json.loads(found.read_text())["results"]["ours"]["acc,none"] == 1.0


# --- curl -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def curl(server):
    if not shutil.which("curl"):
        pytest.skip("no curl")

    def ask(path: str, *arguments: str, key: str = ASK) -> str:
        command = ["curl", "-sS", "--max-time", "60", f"{server.url}{path}", "-H", f"Authorization: Bearer {key}"]
        return subprocess.run([*command, *arguments], check=True, capture_output=True, text=True).stdout

    return ask


def test_curl_asks_streams_and_edits(curl, server, said, tmp_path):
    body = {"messages": MESSAGES, "max_tokens": 12, "temperature": 0}
    assert json.loads(curl("/v1/chat/completions", "-d", json.dumps(body)))["choices"][0]["message"]["content"] == said
    streamed = curl("/v1/chat/completions", "-N", "-d", json.dumps(body | {"stream": True})).strip().split("\n\n")
    assert streamed[-1] == "data: [DONE]"
    assert curl("/health", "-o", "/dev/null", "-w", "%{http_code}") == "200"
    assert curl("/v1/completions", "-d", '{"nonsense": 1}', "-o", "/dev/null", "-w", "%{http_code}") == "400"
    from memlayers import Patch, write_patch

    pool = json.loads(curl("/v1/memory", key=ADMIN))
    patch = Patch(pool=pool["pool"], slots=torch.tensor([0, 2]), rows=torch.ones(2, pool["width"]))
    write_patch(tmp_path / "p.patch", patch)
    big = ["-H", "Expect: 100-continue", "--data-binary", f"@{tmp_path / 'p.patch'}"]
    assert json.loads(curl("/v1/memory/patches", *big, key=ADMIN))["version"] == pool["version"] + 1
    gone = curl(f"/v1/memory/patches/{patch.id}", "-X", "DELETE", key=ADMIN)
    assert json.loads(gone)["version"] == pool["version"] + 2
    code = ["-o", "/dev/null", "-w", "%{http_code}"]
    assert curl(f"/v1/memory/patches/{patch.id}", "-X", "DELETE", "-H", 'If-Match: "1"', *code, key=ADMIN) == "412"


def test_http_clients_of_other_versions(curl):
    assert curl("/health", "--http1.0", "-o", "/dev/null", "-w", "%{http_code} %{http_version}").startswith("200")
    # It asks for HTTP/2 and goes on without.
    assert curl("/health", "--http2", "-o", "/dev/null", "-w", "%{http_code} %{http_version}") == "200 1.1"
