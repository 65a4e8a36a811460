"""The file reader: every format as text, nothing outside the task, no bomb unpacked."""

import io
import zipfile

import pytest

from reagent_env.errors import ToolError
from reagent_env.task import Task
from reagent_env.task_sets import load_task_set
from reagent_env.task_sets.file_formats import docx_bytes, pdf_bytes, xlsx_bytes, zip_bytes
from reagent_env.tools.file_reader import PIECE_CHARS, file_reader

ROWS = [["name", "n"], ["ada, countess", 3]]
HTML = b"<html><head><title>no</title></head><script>no()</script><p>Hello</p><td>a</td><td>b</td>"
FILES = {
    "notes.txt": "caf\u00e9".encode(),
    "table.csv": b"a,b\n1,2\n",
    "facts.json": b'{"a": [1]}',
    "page.html": HTML,
    "book.xlsx": xlsx_bytes({"one": ROWS, "two": [["z"]]}),
    "letter.docx": docx_bytes("Title", ROWS),
    "paper.pdf": pdf_bytes("Title", ROWS * 60),
    "data.zip": zip_bytes({"inner/x.csv": b"p,q\n", "book.xlsx": xlsx_bytes({"s": ROWS})}),
    "long.txt": b"0123456789" * 1000,
    "empty.txt": b"",
    "photo.jpg": b"\xff\xd8\0\0binary",
    "broken.xlsx": b"PK not really",
    "broken.pdf": b"%PDF-1.4 nothing",
    "broken.docx": zip_bytes({"other.xml": b"<a/>"}),
}


def read(path, part="", offset=0, files=FILES):
    return file_reader(path, part, offset, task=Task(question="q", answer="a", files=files))


def packed(name, content):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("notes.txt", "caf\u00e9"),
        ("./notes.txt", "caf\u00e9"),
        ("/work/notes.txt", "caf\u00e9"),
        ("table.csv", "a,b\n1,2\n"),
        ("facts.json", '{\n "a": [\n  1\n ]\n}'),
        ("page.html", "Hello\n| a | b"),
        ("book.xlsx", '## Sheet one\nname,n\n"ada, countess",3\n## Sheet two\nz'),
        ("letter.docx", "Title\nname | n\nada, countess | 3"),
        ("data.zip::inner/x.csv", "p,q\n"),
        ("data.zip::book.xlsx", '## Sheet s\nname,n\n"ada, countess",3'),
        ("empty.txt", "'empty.txt' is empty."),
    ],
)
def test_each_format_is_read_as_text(path, shown):
    assert read(path) == shown


def test_files_and_archives_are_listed():
    assert "data.zip (" in read(".")
    assert "inner/x.csv (4 bytes)" in read("data.zip")


def test_a_sheet_or_pages_can_be_chosen():
    assert read("book.xlsx", part="two") == "## Sheet two\nz"
    assert read("paper.pdf", part="2").startswith("## Page 2 of 3\n")
    assert "## Page 3 of 3" in read("paper.pdf", part="2-3")
    for part in ("0", "4", "3-2", "x", "1-99999999999999999999", "²"):
        with pytest.raises(ToolError, match="part"):
            read("paper.pdf", part=part)
    with pytest.raises(ToolError, match="Sheets: one, two"):
        read("book.xlsx", part="three")


def test_a_long_file_is_read_piece_by_piece():
    first = read("long.txt")
    assert f"[{10_000 - PIECE_CHARS} more characters; go on with offset={PIECE_CHARS}]" in first
    second = read("long.txt", offset=PIECE_CHARS)
    assert first[:PIECE_CHARS] + second == "0123456789" * 1000
    with pytest.raises(ToolError, match="past the end"):
        read("long.txt", offset=10_000)


def test_a_missing_file_names_those_there_are():
    with pytest.raises(ToolError, match=r"Did you mean 'table.csv'.*Files: book.xlsx, broken"):
        read("tabel.csv")
    with pytest.raises(ToolError, match=r"Files: book.xlsx, inner/x.csv"):
        read("data.zip::y.csv")


@pytest.mark.parametrize(
    "path", ["../x", "/etc/passwd", "a/../../x", "..\\x", "/work/../etc/passwd"]
)
def test_nothing_outside_the_task_is_read(path):
    with pytest.raises(ToolError, match="outside the task's folder"):
        read(path)


@pytest.mark.parametrize(
    "path", ["photo.jpg", "broken.xlsx", "broken.pdf", "broken.docx", "notes.txt::a", "a::b::c::d"]
)
def test_what_cannot_be_read_is_said_to_the_model(path):
    with pytest.raises(ToolError):
        read(path)


@pytest.mark.parametrize("name", ["x.txt", "word/document.xml"])
def test_a_zip_bomb_is_not_unpacked(name):
    bomb = packed(name, b"\0" * 30_000_000)
    assert len(bomb) < 50_000
    with pytest.raises(ToolError, match="times its packed size"):
        read(f"bomb.zip::{name}", files={"bomb.zip": bomb})
    for ending in ("xlsx", "docx", "zip"):
        with pytest.raises(ToolError, match="times its packed size"):
            read(f"bomb.{ending}", files={f"bomb.{ending}": bomb})


def test_an_archive_that_lies_about_sizes_is_not_read_past_them():
    honest = packed("x.txt", b"a" * 100_000)
    lying = honest.replace((100_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    with pytest.raises(ToolError):
        read("lie.zip::x.txt", files={"lie.zip": lying})


def test_entity_bombs_are_refused():
    entities = b'<!DOCTYPE a [<!ENTITY b "x">]><a>&b;</a>'
    with pytest.raises(ToolError, match="entities"):
        read("a.docx", files={"a.docx": zip_bytes({"word/document.xml": entities})})
    with pytest.raises(ToolError, match="entities"):
        read("a.xlsx", files={"a.xlsx": zip_bytes({"xl/workbook.xml": entities})})


def test_the_main_table_of_every_layout_can_be_read():
    layouts = {}
    for task in load_task_set("file_qa", split="train", sizes={"train": 192}):
        layouts.setdefault(task.metadata["layout"], task)
    for layout, task in layouts.items():
        listing = file_reader(".", task=task)
        assert "readme.txt" in listing, layout
        for name in task.files:
            assert file_reader(name, task=task), (layout, name)
    assert len(layouts) == 8


def test_the_model_sees_path_part_and_offset_alone():
    assert set(file_reader.parameters["properties"]) == {"path", "part", "offset"}
    assert file_reader.parameters["required"] == ["path"]
