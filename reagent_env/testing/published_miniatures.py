"""Small files in the shape of the published data sets, for machines that have none of them.

``python -m reagent_env.testing.published_miniatures FOLDER`` writes a folder that
``REAGENT_DATA_DIR`` or ``data=`` can name: the same columns, configurations, splits and file kinds
as the hub's, three questions or so each. Every question here was made up here; none is a data set's.
Results on them say that the code runs, and nothing about a policy.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import sys
import uuid
import wave
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reagent_env.task_sets.published_cipher import encrypted

Record = dict[str, Any]
CANARY = "MINIATURE DATA, MADE FOR TESTS; NO BENCHMARK"

_PARAGRAPHS: Mapping[str, Sequence[str]] = {
    "Ilse Varn": ("Ilse Varn was a composer.", " She was born in Odrun in 1871."),
    "Odrun": ("Odrun is a town on the Keth.", " Its mayor is Tomas Bel."),
    "Keth": ("The Keth is a river of 212 km.", " It rises in the Lorn Hills."),
    "Bel Bridge": ("Bel Bridge crosses the Keth.", " It was opened in 1904."),
    "Marn Opera": ("Marn Opera gave the first night of The Heron in 1899.",),
    "The Heron": ("The Heron is an opera by Ilse Varn.",),
}
_QUESTIONS: Sequence[tuple[str, list[str], tuple[str, str]]] = (
    (
        "On which river lies the town where Ilse Varn was born?",
        ["Keth", "the Keth"],
        ("Ilse Varn", "Odrun"),
    ),
    (
        "Who is mayor of the birthplace of the composer of The Heron?",
        ["Tomas Bel"],
        ("The Heron", "Odrun"),
    ),
    ("How long is the river that Bel Bridge crosses?", ["212 km"], ("Bel Bridge", "Keth")),
)
"""Question, forms of its answer, titles of the paragraphs that say it."""


def write_miniatures(folder: str | Path) -> Path:
    """Write every miniature below ``folder``, one sub-folder a data set, and return the folder."""
    root = Path(folder)
    _mathematics(root)
    _questions(root)
    _agents(root)
    _trajectories(root)
    return root


def _mathematics(root: Path) -> None:
    worked = [
        ("A crate holds 12 jars. How many jars do 7 crates hold?", "7 * 12 = <<7*12=84>>84.\n#### 84"),
        ("Mia saves 15 coins a day for 80 days. How many coins has she?", "15 * 80 = 1200.\n#### 1,200"),
        ("A rope of 9 m is cut into pieces of 3 m. How many pieces are there?", "9 / 3 = 3.\n#### 3"),
    ]  # fmt: skip
    rows: list[Record] = [{"question": question, "answer": answer} for question, answer in worked]
    _parquet(root / "gsm8k" / "main" / "test-00000-of-00001.parquet", rows)
    more: list[Record] = [
        {"question": f"How many legs have {n} ants?", "answer": f"{n} * 6\n#### {6 * n}"}
        for n in range(2, 42)
    ]
    _parquet(root / "gsm8k" / "main" / "train-00000-of-00001.parquet", more)
    _parquet(root / "gsm8k" / "socratic" / "test-00000-of-00001.parquet", rows[:1])
    problems: list[tuple[Any, ...]] = [
        ("Compute $\\frac{3}{4} + \\frac{1}{8}$.", "$\\boxed{\\frac{7}{8}}$", "\\frac{7}{8}", "Fractions", 1),
        ("Solve $x^2 = 5x - 6$ for the larger root.", "2 and 3: $\\boxed{3}$.", "3", "Algebra", 3),
        ("Write $(x + 1)^2$ expanded.", "$\\boxed{x^2 + 2x + 1}$", "x^2 + 2x + 1", "Algebra", 2),
    ]  # fmt: skip
    names = ("problem", "solution", "answer", "subject", "level")
    rows = [dict(zip(names, one, strict=True)) for one in problems]
    for number, row in enumerate(rows):
        row["unique_id"] = f"test/made/{number}.json"
    _lines(root / "math500" / "test.jsonl", rows)
    sums = [
        ("Positive integers $a$, $b$ have sum 30. Find the largest $ab$.", "225"),
        ("How many integers from 1 to 1000 are divisible by 7 but not by 5?", "114"),
        ("Find the remainder of $3^{40}$ divided by 41.", "1"),
    ]
    rows = [
        {"id": n, "problem": p, "solution": f"\\boxed{{{a}}}", "answer": a, "url": "", "year": "0"}
        for n, (p, a) in enumerate(sums)
    ]
    _parquet(root / "aime24" / "data" / "train-00000-of-00001.parquet", rows)
    angles = [
        ("The first $n$ odd positive integers sum to 676. Find $n$.", "26"),
        ("How many positive integers $x$, $y$ have $2x + 3y = 100$?", "16"),
        ("Find the interior angle, in degrees, of a regular polygon of 15 sides.", "156^\\circ"),
    ]
    rows = [{"problem": p, "answer": a, "id": str(n)} for n, (p, a) in enumerate(angles)]
    _lines(root / "aime25" / "test.jsonl", rows)


def _questions(root: Path) -> None:
    hotpot = [
        {
            "id": f"made{number}",
            "question": question,
            "answer": forms[0],
            "type": "bridge",
            "level": "hard",
            "supporting_facts": {"title": list(titles), "sent_id": [0, 0]},
            "context": {
                "title": list(_PARAGRAPHS),
                "sentences": [list(parts) for parts in _PARAGRAPHS.values()],
            },
        }
        for number, (question, forms, titles) in enumerate(_QUESTIONS)
    ]
    _parquet(root / "hotpotqa" / "distractor" / "validation-00000-of-00001.parquet", hotpot)
    _parquet(root / "hotpotqa" / "distractor" / "train-00000-of-00001.parquet", hotpot[:1])
    _parquet(root / "hotpotqa" / "fullwiki" / "validation-00000-of-00001.parquet", hotpot[:1])
    _parquet(root / "2wiki" / "data" / "validation-00000-of-00001.parquet", hotpot)
    musique = [
        {
            "id": f"2hop__made{number}",
            "paragraphs": [
                {"idx": i, "title": t, "paragraph_text": "".join(p), "is_supporting": t in titles}
                for i, (t, p) in enumerate(_PARAGRAPHS.items())
            ],
            "question": question,
            "question_decomposition": [],
            "answer": forms[0],
            "answer_aliases": forms[1:],
            "answerable": True,
        }
        for number, (question, forms, titles) in enumerate(_QUESTIONS)
    ]  # fmt: skip
    _lines(root / "musique" / "musique_ans_v1.0_dev.jsonl", musique)
    rows: list[Record] = [
        {"Question": question, "Answer": forms[0]} for question, forms, _ in _QUESTIONS
    ]
    _table(root / "bamboogle" / "test.csv", rows)
    rows = [{"question": question, "answer": forms} for question, forms, _ in _QUESTIONS]
    _parquet(root / "nq" / "nq_open" / "validation-00000-of-00001.parquet", rows)
    rows = [
        {
            "question": question,
            "question_id": f"made_{number}",
            "answer": {"value": forms[0], "aliases": forms, "normalized_value": forms[0].lower()},
        }
        for number, (question, forms, _) in enumerate(_QUESTIONS)
    ]
    _parquet(root / "triviaqa" / "rc.nocontext" / "validation-00000-of-00001.parquet", rows)
    rows = [
        {"id": number, "prop": "place", "question": question, "possible_answers": json.dumps(forms)}
        for number, (question, forms, _) in enumerate(_QUESTIONS)
    ]
    _lines(root / "popqa" / "test.jsonl", rows)


def _agents(root: Path) -> None:
    named = {
        kind: f"{uuid.uuid5(uuid.NAMESPACE_DNS, kind)}.{kind}" for kind in ("csv", "png", "wav")
    }
    files = {
        named["csv"]: b"day,crates\nMonday,17\nTuesday,25\n",
        named["png"]: picture_of("Total: 4812 crates"),
        named["wav"]: silence(),
    }
    asked = [
        ("What is 17 plus 25?", 1, "42", ""),
        ("List milk and egg in alphabetical order, comma separated.", 1, "egg, milk", ""),
        ("How many crates were there on both days together?", 2, "42", named["csv"]),
        ("What total does the sign show?", 2, "4812", named["png"]),
        ("How many words are said in the recording?", 3, "0", named["wav"]),
    ]  # fmt: skip
    gaia = [
        {
            "task_id": str(uuid.uuid5(uuid.NAMESPACE_DNS, question)),
            "Question": question,
            "Level": str(level),
            "Final answer": answer,
            "file_name": name,
            "file_path": f"2023/validation/{name}" if name else "",
            "Annotator Metadata": {"Steps": "made for tests", "Number of steps": "1"},
        }
        for question, level, answer, name in asked
    ]
    folder = root / "gaia" / "2023" / "validation"
    _parquet(folder / "metadata.parquet", gaia)
    _parquet(folder / "metadata.level1.parquet", [row for row in gaia if row["Level"] == "1"])
    for name, content in files.items():
        (folder / name).write_bytes(content)
    withheld = [{**gaia[0], "Question": "Withheld.", "Final answer": "?"}]
    _parquet(root / "gaia" / "2023" / "test" / "metadata.parquet", withheld)
    walks = [
        {
            "question": question,
            "answer": f"{forms[0]}.",
            "root_url": "https://odrun.example/",
            "info": {
                "hop": "multi-source",
                "domain": "conference",
                "lang": "en",
                "difficulty_level": level,
                "source_website": ["https://odrun.example/a"],
                "golden_path": ["root->a"],
            },
        }
        for (question, forms, _), level in zip(_QUESTIONS, ("easy", "medium", "hard"), strict=True)
    ]
    _lines(root / "webwalkerqa" / "data" / "main-00000-of-00001.jsonl", walks)
    _lines(root / "webwalkerqa" / "data" / "silver-00000-of-00001.jsonl", walks[:1])
    sign = "data:image/png;base64," + base64.b64encode(files[named["png"]]).decode("ascii")
    exams = [
        ("What is the least prime above 90?", "", "97", "exactMatch", "Math"),
        ("Which is a river?\n\nA. Odrun\nB. Keth\nC. Marn", "", "B", "multipleChoice", "Other"),
        ("Which total does the sign in the image show?", sign, "4812", "exactMatch", "Other"),
    ]
    names = ("question", "image", "answer", "answer_type", "category")
    hle = [
        {"id": f"made{number}", **dict(zip(names, one, strict=True)), "canary": CANARY}
        for number, one in enumerate(exams)
    ]
    _parquet(root / "hle" / "data" / "test-00000-of-00001.parquet", hle)
    deep = [
        {
            "id": str(number),
            "prompt": encrypted(question, CANARY),
            "answer": encrypted(forms[0], CANARY),
            "reference_steps": encrypted("made for tests", CANARY),
            "canary": CANARY,
        }
        for number, (question, forms, _) in enumerate(_QUESTIONS, start=1)
    ]
    _table(root / "xbench" / "DeepSearch.csv", deep)
    mixed = [("What is 6 * 7?", "42", "math"), (_QUESTIONS[0][0], "Keth", "search")]
    mixture = [
        {"question": q, "ground_truth": a, "category": kind, "meta_info": {"source": "made"}}
        for q, a, kind in mixed
    ]
    _lines(root / "reagent_rl" / "train.jsonl", mixture)


def _trajectories(root: Path) -> None:
    """AgentGym's and Reagent's conversations, as ``families/agentgym_trajectories.py`` reads them."""
    played = [
        ("You craft things.", None, "human"),
        ("OK.", False, "gpt"),
        ("Goal: craft 1 stick.", None, "human"),
        ("Thought:\nPlanks first.\n\nAction:\nget 1 planks", True, "gpt"),
        ("Got 1 planks", None, "human"),
        ("Thought:\nNow the stick.\n\nAction:\ncraft 4 stick using 2 planks", True, "gpt"),
    ]
    turns = [{"from": who, "loss": loss, "value": text} for text, loss, who in played]
    records = [{"item_id": "textcraft_3", "conversations": turns}]
    _write(root / "agenttraj_l" / "textcraft_train.json", json.dumps(records, indent=1))
    evaluated = [{"item_id": "textcraft_0"}, {"item_id": "textcraft_1"}]
    _write(root / "agenteval" / "textcraft_test.json", json.dumps(evaluated, indent=1))
    call = '<tool_call>{"name": "python", "arguments": {"code": "print(6 * 7)"}}</tool_call>'
    chat = [
        {"role": "system", "content": "You may call tools."},
        {"role": "user", "content": "What is 6 * 7?"},
        {"role": "assistant", "content": call},
        {"role": "user", "content": "<tool_response>42</tool_response>"},
        {"role": "assistant", "content": "It is \\boxed{42}."},
    ]
    _lines(root / "reagent_sft" / "train.jsonl", [{"messages": chat}])


# Writing ------------------------------------------------------------------------------------------


def picture_of(text: str) -> bytes:
    """A PNG with a line of text, dark on white."""
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.new("RGB", (640, 120), "white")
    ImageDraw.Draw(picture).text((24, 32), text, fill="black", font=ImageFont.load_default(48))
    written = io.BytesIO()
    picture.save(written, "PNG")
    return written.getvalue()


def silence(seconds: float = 0.5) -> bytes:
    """A WAV without a sound in it."""
    written = io.BytesIO()
    with wave.open(written, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes(b"\0\0" * int(16_000 * seconds))
    return written.getvalue()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def _lines(path: Path, records: Sequence[Record]) -> None:
    _write(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def _table(path: Path, records: Sequence[Record]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as lines:
        rows = csv.DictWriter(lines, list(records[0]))
        rows.writeheader()
        rows.writerows(records)


def _parquet(path: Path, records: Sequence[Record]) -> None:
    import pyarrow
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(list(records)), path)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m reagent_env.testing.published_miniatures FOLDER")
    print(write_miniatures(sys.argv[1]))
