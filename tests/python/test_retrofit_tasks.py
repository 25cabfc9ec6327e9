# SPDX-License-Identifier: Apache-2.0
"""The tasks' files that tools/retrofit.py asks a model, in the shapes that their repositories have them in."""

import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import retrofit_tasks


def test_files_that_are_absent_are_left_out(tmp_path):
    assert retrofit_tasks.piqa(tmp_path) == []
    assert retrofit_tasks.arc_easy(tmp_path) == []
    assert retrofit_tasks.lambada(tmp_path) == []


def test_piqa_and_its_labels_are_questions(tmp_path):
    (tmp_path / "piqa").mkdir()
    rows = [{"goal": "Cut bread", "sol1": "with a spoon", "sol2": "with a knife"}, {"goal": "B", "sol1": "c", "sol2": "d"}]
    (tmp_path / "piqa/valid.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "piqa/valid-labels.lst").write_text("1\n0\n")
    first, second = retrofit_tasks.piqa(tmp_path)
    assert first == {
        "question": "Question: Cut bread\nAnswer:",
        "choices": ["with a spoon", "with a knife"],
        "answer": 1,
    }
    assert second["answer"] == 0


def test_arc_is_taken_out_of_its_instruction(tmp_path):
    (tmp_path / "ARC-Easy").mkdir()
    instruction = (
        "Please choose the correct answer to the question: Which one\nis hot?\n\n"
        "Answer1: ice Answer2: the sun's light Answer3: 3 stones\n\nAnswer format: answer1/answer2/answer3"
    )
    row = {"instruction": instruction, "input": "", "output": "the correct answer is answer2", "answer": "answer2"}
    (tmp_path / "ARC-Easy/test.json").write_text(json.dumps([row]))
    assert retrofit_tasks.arc_easy(tmp_path) == [
        {
            "question": "Question: Which one\nis hot?\nAnswer:",
            "choices": ["ice", "the sun's light", "3 stones"],
            "answer": 1,
        }
    ]


def test_the_last_word_is_right_where_all_its_tokens_are_the_likeliest(tmp_path):
    texts = [{"text": "ab\n\nc de"}, {"text": "ab c dd"}]
    (tmp_path / "lambada_test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    passages = retrofit_tasks.lambada(tmp_path)
    assert passages == [("ab\n\nc", " de"), ("ab c", " dd")]

    class Alphabet:  # says "e" behind "d" and otherwise what comes
        tokenizer = property(lambda self: self)

        def encode(self, text):
            return [ord(letter) for letter in text]

        def logits(self, tokens):
            likeliest = [*tokens[0].tolist()[1:], 0]
            likeliest = [ord("e") if before == ord("d") else next_ for before, next_ in zip(tokens[0].tolist(), likeliest)]
            return torch.nn.functional.one_hot(torch.tensor(likeliest), 128).float().unsqueeze(0)

    assert retrofit_tasks.last_words(Alphabet(), passages) == [True, False]


def test_the_same_questions_are_drawn_each_time():
    numbers = list(range(100))
    assert retrofit_tasks.some(numbers, 10) == retrofit_tasks.some(numbers, 10)
    assert sorted(retrofit_tasks.some(numbers, 1000)) == numbers
