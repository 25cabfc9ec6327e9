# SPDX-License-Identifier: Apache-2.0
"""Generator, learn, explain, grow and Store do what the command does."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from trained_model import run, train

from memlayers import (
    Error,
    Generator,
    Patch,
    PoolFolder,
    Store,
    Tokenizer,
    explain,
    grow,
    learn,
    load_pool,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("model"), "")


@pytest.fixture
def folder(model, tmp_path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "model"))


PROMPTS = ["what is 7: ", "what", "what is 12: a number"]


def test_answers_are_those_of_the_command(model):
    generator = Generator(model)
    told = [
        json.loads(line)
        for line in run(model, "generate", ".", *PROMPTS, "--max-tokens", "9", "--json").splitlines()
    ]
    pieces: list[str] = ["", "", ""]

    def on_text(row: int, text: str) -> None:
        pieces[row] += text

    answers = generator.generate(PROMPTS, max_tokens=9, on_text=on_text)
    for answer, wanted, text in zip(answers, told, pieces, strict=True):
        assert (answer.text, answer.tokens) == (wanted["text"], wanted["tokens"])
        assert (answer.finish, answer.prompt_tokens) == (wanted["finish"], wanted["prompt_tokens"])
        assert text == answer.text
    assert "".join(generator.stream(PROMPTS[0], max_tokens=9)) == answers[0].text
    ids = generator.tokenizer.encode_prompt(PROMPTS[0])
    (by_tokens,) = generator.generate([ids], max_tokens=9)
    assert by_tokens.tokens == answers[0].tokens
    assert generator.store_error is None and generator.folder == str(model)


def test_options_do_what_they_say(model):
    generator = Generator(model)

    def one(**options):
        return generator.generate(["what is 7: "], max_tokens=6, ignore_eos=True, **options)[0]

    greedy = one()
    assert one(temperature=1.0, seed=3).tokens == one(temperature=1.0, seed=3).tokens
    assert one(temperature=1.0, top_k=1).tokens == greedy.tokens
    assert one(logit_bias={5: 1000.0}).tokens == [5] * 6
    assert one(stop_tokens=[greedy.tokens[2]]).tokens == greedy.tokens[:2]
    assert one(stop=greedy.text[2]).text == greedy.text[:2]
    scored = one(logprobs=2, prompt_logprobs=True)
    assert [place.token for place in scored.logprobs] == greedy.tokens
    assert all(place.top[0] == (place.token, place.logprob) for place in scored.logprobs)
    prompt = generator.tokenizer.encode_prompt("what is 7: ")
    assert [place.token for place in scored.prompt_logprobs] == prompt
    assert scored.prompt_logprobs[0].logprob is None
    logits = generator.logits(torch.tensor([prompt]))[0].log_softmax(-1)
    for place, token in enumerate(prompt[1:]):
        wanted = logits[place, token].item()
        assert scored.prompt_logprobs[place + 1].logprob == pytest.approx(wanted, abs=1e-4)
    assert generator.generate(["what"], max_tokens=5, on_text=lambda *_: False)[0].finish == "stop"


def test_a_call_sees_the_edits_made_before_it(folder):
    generator = Generator(folder)
    (before,) = generator.generate(["what is 7: "], max_tokens=4)
    pool = PoolFolder(folder)
    for slot in range(81):
        pool.update(slot, 5 * torch.ones(32))
    (after,) = generator.generate(["what is 7: "], max_tokens=4)
    assert (before.pool_version, after.pool_version) == (0, 81)
    assert before.tokens != after.tokens
    with Store(folder) as store:
        store.rollback(*pool.patches)
    assert generator.generate(["what is 7: "], max_tokens=4)[0].tokens == before.tokens


@pytest.mark.parametrize(
    "options, error, sentence",
    [
        ({"temperature": -1}, Error, "temperature: expected a number >= 0, got -1"),
        ({"temprature": 1}, Error, 'unknown field "temprature"; did you mean "temperature"'),
        ({"seed": 1.5}, Error, "options: seed: expected"),
        ({"stop": [""]}, Error, 'stop: expected text, got ""'),
        ({"logit_bias": {"a": 1.0}}, Error, "logit_bias"),
        ({"top_p": float("nan")}, TypeError, "options: "),
        ({"stop": {1, 2}}, TypeError, "options: "),
    ],
)
def test_wrong_options(model, options, error, sentence):
    with pytest.raises(error, match=sentence):
        Generator(model).generate(["what"], **options)


def test_wrong_prompts_and_folders(model, tmp_path):
    generator = Generator(model)
    with pytest.raises(Error, match="expected at most|context"):
        generator.generate(["what is " * 40])
    with pytest.raises(Error, match="300"):
        generator.generate([[5000]])
    with pytest.raises(Error, match="expected ids of 0 or more, got -1"):
        generator.generate([[-1]])
    for wrong in ("what", [], 7):
        with pytest.raises(TypeError, match="expected a list of prompts"):
            generator.generate(wrong)
    with pytest.raises(TypeError, match="a prompt as text or tokens, got float"):
        generator.generate([1.5])
    for make in (Generator, Store, Tokenizer):
        with pytest.raises(Error, match=str(tmp_path)):
            make(tmp_path)
        with pytest.raises(TypeError, match="expected a path, got int"):
            make(3)


FACTS = [
    {"prompt": "what is a dog: ", "answer": "an animal", "paraphrases": ["a dog is: "]},
    {"prompt": "what is a tree: ", "answer": "a plant"},
]
QUICK = {"steps": 40, "settle": 0, "lr": 0.05, "check_every": 5}


def test_what_is_learned_is_applied_and_taken_back(folder, tmp_path):
    steps: list[tuple[int, float | None, int]] = []
    learned = learn(
        folder,
        FACTS,
        tmp_path / "facts.safetensors",
        progress=lambda now: steps.append((now.step, now.loss, now.phrasings)),
        **{**QUICK, "steps": 600},
    )
    assert learned.recalled == learned.phrasings == 3 and steps
    for step, loss, phrasings in steps:
        assert phrasings == 3 and (loss is None) == (step == 0)
    assert len(learned.patch.slots) <= learned.slots
    before = load_pool(folder)
    generator = Generator(folder)
    with Store(folder) as store:
        digest = store.digest()
        (done,) = store.apply(learned.file)
        assert (done.version, done.was_there, done.conflicts) == (1, False, [])
        assert store.writer_of(int(learned.patch.slots[0])) == learned.patch.id
        assert [p.state for p in store.patches()] == ["applied"]
        for fact in FACTS:
            (answer,) = generator.generate([fact["prompt"]], max_tokens=8)
            assert answer.text.strip() == fact["answer"]
            confidence = generator.memory_confidence(fact["prompt"])
            assert confidence.match == 1 and confidence.value > 0.5
            assert confidence.patch == learned.patch.id
        assert generator.memory_confidence("what is a 9: ").value < 0.5
        explained = explain(folder, FACTS[0]["prompt"], top=1)
        assert explained.memory_confidence > 0.5 and explained.subject["patch"] == learned.patch.id
        assert learned.patch.subjects
        run(folder, "quantize", ".", "-o", "small", "--rows", "int8")  # knows what it was taught
        known = Generator(folder / "small").memory_confidence(FACTS[0]["prompt"])
        assert known.value > 0.5 and known.patch == learned.patch.id
        assert torch.equal(store.patch(learned.patch.id[:8]).rows, learned.patch.rows)
        store.rollback(learned.patch.id[:8])
        assert generator.memory_confidence(FACTS[0]["prompt"]) is None
        assert [p.state for p in store.patches()] == ["rolled back"] and store.digest() == digest
        store.reapply(learned.patch.id)
        store.keep(learned.patch.id)
        assert [p.state for p in store.patches()] == ["kept"]
        assert not store.compact(0.0).was_there
        store.verify()
        with pytest.raises(IndexError, match=r"a slot in \[0, 81\)"):
            store.writer_of(81)
    with pytest.raises(Error, match="expected an open store, it was closed"):
        store.digest()
    assert not torch.equal(load_pool(folder), before)


def test_the_command_learns_the_same_rows(folder, tmp_path):
    (tmp_path / "facts.jsonl").write_text("".join(json.dumps(fact) + "\n" for fact in FACTS))
    learned = learn(folder, tmp_path / "facts.jsonl", tmp_path / "mine.safetensors", **QUICK)
    options = "--steps 40 --settle 0 --lr 0.05 --check-every 5".split()
    run(folder, "learn", ".", str(tmp_path / "facts.jsonl"), "-o", "theirs.safetensors", *options)
    with Store(folder) as store:
        store.apply("theirs.safetensors" if Path("theirs.safetensors").exists() else
                    folder / "theirs.safetensors")  # fmt: skip
        theirs = store.patch(store.patches()[0].id)
    assert torch.equal(theirs.slots, learned.patch.slots)
    assert torch.equal(theirs.rows, learned.patch.rows)
    assert learned.patch.notes["from"] == str(tmp_path / "facts.jsonl")


def test_learning_that_is_stopped_or_wrong_writes_nothing(folder, tmp_path):
    out = tmp_path / "out.safetensors"

    def interrupt(_) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(folder, FACTS, out, steps=10**6, progress=interrupt)
    for facts, options, sentence in [
        ([{"prompt": "x"}], {}, "answer"),
        ([], {}, "at least one fact, got none"),
        (FACTS, {"selection": "best"}, "selection: expected tfidf, kl or guarded, got"),
        (FACTS, {"optimizer": "adamw"}, "optimizer: expected adam or sgd"),
        (FACTS, {"steps": -1}, "steps"),
        (tmp_path / "none.jsonl", {}, "none.jsonl"),
    ]:
        with pytest.raises(Error, match=sentence):
            learn(folder, facts, out, **options)
    (folder / "usage.safetensors").unlink()
    with pytest.raises(Error, match="expected usage.safetensors, .* background files"):
        learn(folder, FACTS, out)
    assert not out.exists()
    out.write_text("")
    with pytest.raises(FileExistsError, match="expected a file that does not exist yet"):
        learn(folder, FACTS, out)


def test_an_answer_is_explained_as_by_the_command(model):
    told = json.loads(run(model, "explain", ".", "what is 7: ", "--top", "4", "--json"))
    explained = explain(model, "what is 7: ", top=4, prompts=["what is 7: "])
    assert explained.answer == told["answer"] and explained.is_own
    assert [slot.slot for slot in explained.slots] == [slot["slot"] for slot in told["slots"]]
    assert explained.slots[0].change == pytest.approx(told["slots"][0]["change"])
    assert explained.slots[0].patch is None and explained.slots[0].reads[0].layer in (0, 2)
    given = explain(model, "what is 7: ", "a dog", top=2)
    assert not given.is_own and len(given.slots) == 2
    with pytest.raises(Error, match="top"):
        explain(model, "what", top=-1)


def test_a_model_grows(folder, tmp_path):
    grown = grow(folder, 12, seed=1, out=tmp_path / "larger")
    assert (grown.n_keys_before, grown.n_keys, grown.open_keys) == (9, 12, 9)
    answers = [Generator(f).generate(PROMPTS, max_tokens=6) for f in (folder, tmp_path / "larger")]
    assert [a.tokens for a in answers[0]] == [a.tokens for a in answers[1]]
    with pytest.raises(Error, match="9"):
        grow(folder, 9)
    assert grow(folder, 10).n_keys == 10


def test_edits_are_of_all_or_of_none(folder):
    pool = PoolFolder(folder).id
    good = Patch(pool=pool, slots=torch.tensor([3]), rows=torch.ones(1, 32))
    other = Patch(pool="another", slots=torch.tensor([3]), rows=torch.ones(1, 32))
    with Store(folder) as store:
        with pytest.raises(Error, match="another"):
            store.apply(good, other)
        assert store.version == 0 and store.patches() == []
        again = Patch(pool=pool, slots=torch.tensor([3]), rows=torch.zeros(1, 32))
        first, second = store.apply(good, again)
        assert second.conflicts == [(3, good.id, again.id)] and first.conflicts == []
        with pytest.raises(Error, match="nowhere"):
            store.rollback("nowhere")
        with pytest.raises(Error, match="expected no other writer of this pool"):
            Store(folder)
    Store(folder).close()


def test_a_tokenizer_alone(model, tmp_path):
    for path in (model, model / "tokenizer.model"):
        tokenizer = Tokenizer(path)
        ids = tokenizer.encode_prompt("what is 7")
        told = json.loads(run(model, "tokenize", ".", "what is 7", "--json"))
        assert ids == told["ids"] and tokenizer.decode(ids) == "what is 7"
        assert [tokenizer.tokens()[i] for i in ids] == told["tokens"]
        assert (tokenizer.bos, tokenizer.eos, tokenizer.prefix) == (1, 2, [1])
    with pytest.raises(TypeError, match="text as a str, got int"):
        tokenizer.encode(7)
    with pytest.raises(ValueError, match="text of whole characters, got a surrogate"):
        tokenizer.encode("\ud800")
