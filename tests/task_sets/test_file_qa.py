"""FileQA: the same bytes everywhere, files that real readers open, questions that can be solved."""

import collections
import io
import json
import os
import subprocess
import sys
import zipfile

import openpyxl
import pypdf
import pytest

from reagent_env.graders import grade
from reagent_env.task_sets import load_task_set
from reagent_env.task_sets.file_formats import docx_bytes, pdf_bytes, xlsx_bytes, zip_bytes
from reagent_env.task_sets.file_qa import KINDS, LAYOUTS, LEVELS, expert_program

FEW = {"train": 192, "validation": 96, "test": 192}
IDS_PROGRAM = """
from reagent_env.task_sets import load_task_set
tasks = load_task_set("file_qa", sizes={"train": 64, "test": 64})
print(*[task.id for task in tasks], sep="\\n")
"""


@pytest.fixture(scope="module")
def tasks():
    return list(load_task_set("file_qa", sizes=FEW))


def test_there_are_2000_tasks_by_default_and_opening_them_makes_none():
    assert len(load_task_set("file_qa")) == 2000


def test_all_kinds_levels_and_layouts_occur_and_no_task_occurs_twice(tasks):
    assert len({task.id for task in tasks}) == len(tasks) == 480
    assert {task.metadata["kind"] for task in tasks} == set(KINDS)
    assert {task.metadata["level"] for task in tasks} == set(LEVELS)
    assert {task.metadata["layout"] for task in tasks} == set(LAYOUTS)


def test_two_processes_with_other_hash_seeds_make_the_same_bytes():
    outputs = [
        subprocess.run(
            [sys.executable, "-c", IDS_PROGRAM],
            env={**os.environ, "PYTHONHASHSEED": seed, "TZ": zone},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for seed, zone in (("1", "UTC"), ("4242", "Asia/Tokyo"))
    ]
    assert outputs[0] == outputs[1]
    assert len(set(outputs[0].split())) == 128


def test_the_held_out_phrasing_is_asked_in_the_test_split_only(tasks):
    phrasings = collections.defaultdict(set)
    for task in tasks:
        phrasings[task.split].add(task.metadata["phrasing"])
    assert phrasings["train"] == phrasings["validation"] == {0, 1, 2, 3}
    assert phrasings["test"] == {0, 1, 2, 3, 4}


def test_no_question_and_no_table_stands_in_two_splits(tasks):
    splits = collections.defaultdict(set)
    for task in tasks:
        splits[task.question].add(task.split)
        splits[frozenset(task.files.values())].add(task.split)
    assert {len(found) for found in splits.values()} == {1}


def test_the_answer_does_not_stand_in_the_question(tasks):
    for task in tasks:
        assert not task.answer.isalpha() or task.answer not in task.question
        assert grade(task, task.answer) == 1
        assert grade(task, task.question) == 0


def test_the_commonest_answer_of_each_kind_is_rare(tasks):
    answers = collections.defaultdict(collections.Counter)
    for task in tasks:
        answers[task.metadata["kind"]][task.answer] += 1
    for kind, counter in answers.items():
        assert counter.most_common(1)[0][1] / counter.total() < 0.15, kind


def test_the_experts_programs_solve_every_kind_in_every_layout(tasks, tmp_path):
    jobs = []
    chosen = [task for task in tasks if task.split == "test"]
    for number, task in enumerate(chosen):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, blob in task.files.items():
            (folder / name).write_bytes(blob)
        jobs.append([str(folder), expert_program(task.question)])
    separate = (
        "import contextlib, io, json, os, sys\n"
        "for folder, source in json.load(sys.stdin):\n"
        "    os.chdir(folder)\n"
        "    text = io.StringIO()\n"
        "    with contextlib.redirect_stdout(text):\n"
        "        exec(source, {})\n"
        "    print(json.dumps(text.getvalue()))\n"
    )
    printed = subprocess.run(
        [sys.executable, "-I", "-S", "-c", separate],
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout.splitlines()
    scores = [grade(task, json.loads(line)) for task, line in zip(chosen, printed, strict=True)]
    assert sum(scores) / len(scores) == 1.0


def test_an_unknown_question_has_no_program_and_an_unknown_kind_is_refused():
    assert expert_program("How are you?") is None
    with pytest.raises(ValueError, match="known kinds: sum"):
        load_task_set("file_qa", kinds=["guess"])


ROWS = [["name", "n"], ["a < b & c", 3], ["(x) \\ y", -4]]


def test_workbooks_open_in_openpyxl():
    book = openpyxl.load_workbook(io.BytesIO(xlsx_bytes({"one": ROWS, "two": [["z"]]})))
    assert book.sheetnames == ["one", "two"]
    assert [list(row) for row in book["one"].iter_rows(values_only=True)] == ROWS


def test_documents_open_in_python_docx():
    docx = pytest.importorskip("docx")
    document = docx.Document(io.BytesIO(docx_bytes("Title", ROWS)))
    assert document.paragraphs[0].text == "Title"
    cells = [[cell.text for cell in row.cells] for row in document.tables[0].rows]
    assert cells == [[str(value) for value in row] for row in ROWS]


def test_pdfs_of_several_pages_open_in_pypdf():
    reader = pypdf.PdfReader(io.BytesIO(pdf_bytes("Title", ROWS * 40)), strict=True)
    text = "\n".join(page.extract_text() for page in reader.pages)
    assert len(reader.pages) == 3
    assert text.startswith("Title")
    assert text.count("(x) \\ y | -4") == 40


def test_archives_carry_no_time_of_their_making():
    with zipfile.ZipFile(io.BytesIO(zip_bytes({"a/b.txt": b"x"}))) as archive:
        assert archive.getinfo("a/b.txt").date_time == (1980, 1, 1, 0, 0, 0)
        assert archive.testzip() is None
