"""Programs that solve FileQA's questions from their text and the files in the working directory.

They need the standard library alone, and know the phrasings, not the tasks.
"""

from __future__ import annotations

import functools
import re

from reagent_env.task_sets.file_qa_phrasings import PHRASINGS
from reagent_env.task_sets.solving import by_program


def expert_program(question: str) -> str | None:
    """Python that reads the files, answers the question and prints the answer; None if it cannot."""
    for kind in PHRASINGS:
        for pattern in _patterns(kind):
            found = pattern.fullmatch(question.partition("\nFiles: ")[0])
            if found:
                given = "".join(
                    f"{name} = {value!r}\n" for name, value in sorted(found.groupdict().items())
                )
                return given + _READING + _SOLVING[kind]
    return None


solve = by_program(expert_program, look_first=[("file_reader", {"path": "."})])
"""The expert: lists the files, then one ``python`` call."""


@functools.cache
def _patterns(kind: str) -> list[re.Pattern[str]]:
    patterns = []
    for phrasing in PHRASINGS[kind]:
        seen: set[str] = set()

        def group(found: re.Match[str], seen: set[str] = seen) -> str:
            name = found[1]
            if name in seen:
                return f"(?P={name})"
            seen.add(name)
            return f"(?P<{name}>{'.+' if name == 'conditions' else '[^,;:?()]+?'})"

        patterns.append(re.compile(re.sub(r"\\\{(\w+)\\\}", group, re.escape(phrasing))))
    return patterns


_READING = r"""
import csv, io, os, re, zipfile
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from xml.etree import ElementTree

tables = {}

def keep(name, rows):
    rows = [row for row in rows if row]
    tables[name] = [dict(zip(rows[0], row)) for row in rows[1:]]

def local(node):
    return node.tag.rsplit("}", 1)[-1]

def text_of(node):
    return "".join(n.text or "" for n in node.iter() if local(n) == "t")

def read_xlsx(blob):
    with zipfile.ZipFile(io.BytesIO(blob)) as book:
        sheets = [n for n in ElementTree.fromstring(book.read("xl/workbook.xml")).iter()
                  if local(n) == "sheet"]
        for number, sheet in enumerate(sheets, 1):
            rows = []
            root = ElementTree.fromstring(book.read(f"xl/worksheets/sheet{number}.xml"))
            for row in (n for n in root.iter() if local(n) == "row"):
                cells = [n for n in row if local(n) == "c"]
                rows.append([text_of(c) or "".join(v.text for v in c if local(v) == "v")
                             for c in cells])
            keep(sheet.get("name"), rows)

def read_docx(stem, blob):
    with zipfile.ZipFile(io.BytesIO(blob)) as document:
        root = ElementTree.fromstring(document.read("word/document.xml"))
    keep(stem, [[text_of(cell) for cell in row if local(cell) == "tc"]
                for row in root.iter() if local(row) == "tr"])

def read_pdf(stem, blob):
    lines = re.findall(r"\(((?:\\.|[^\\()])*)\) Tj", blob.decode("latin-1"))
    lines = [re.sub(r"\\(.)", r"\1", line) for line in lines]
    keep(stem, [line.split(" | ") for line in lines if " | " in line])

def read(path, blob):
    stem, ending = os.path.splitext(os.path.basename(path))
    if ending == ".csv":
        text = blob.decode()
        delimiter = ";" if ";" in text.split("\n")[0] else ","
        keep(stem, csv.reader(io.StringIO(text), delimiter=delimiter))
    elif ending == ".xlsx":
        read_xlsx(blob)
    elif ending == ".docx":
        read_docx(stem, blob)
    elif ending == ".pdf":
        read_pdf(stem, blob)
    elif ending == ".zip":
        with zipfile.ZipFile(io.BytesIO(blob)) as archive:
            for name in archive.namelist():
                read(name, archive.read(name))

for folder, _, files in os.walk("."):
    for name in files:
        with open(os.path.join(folder, name), "rb") as stream:
            read(name, stream.read())

months = ("January February March April May June July August September October November "
          "December").split()

def meets(row, condition):
    column, value = re.fullmatch(r"(\w+) is (.+)", condition).groups()
    if value.startswith('"'):
        return row[column] == value.strip('"')
    if value.startswith("above "):
        return Decimal(row[column]) > Decimal(value.split()[1])
    _, month, year = value.split()
    return row[column].startswith(f"{year}-{months.index(month) + 1:02d}-")

rows = tables[table]
if "conditions" in globals():
    rows = [row for row in rows if all(meets(row, c) for c in conditions.split(" and "))]
"""

_SOLVING = {
    "sum": "print(sum(int(row[count]) for row in rows))",
    "average": "mean = sum(Decimal(row[amount]) for row in rows) / len(rows)\n"
    "print(mean.quantize(Decimal('0.01'), ROUND_HALF_UP))",
    "join_sum": "kept = {row[item] for row in tables[second] if row[group] == value}\n"
    "print(sum(int(row[count]) for row in rows if row[item] in kept))",
    "count": "print(sum(int(row[count]) < int(bound) for row in rows))",
    "best_item": "totals = {}\n"
    "for row in rows:\n"
    "    totals[row[item]] = totals.get(row[item], 0) + int(row[count])\n"
    "print(max(totals, key=totals.get))",
    "largest": "ranked = sorted(rows, key=lambda row: -Decimal(row[amount]))\n"
    "print(ranked[int(rank) - 1][key])",
    "two_hops": "wanted = next(row[item] for row in rows if row[key] == value)\n"
    "print(next(row[owner] for row in tables[second] if row[item] == wanted))",
    "days": "days = sorted(date.fromisoformat(row['date']) for row in rows)\n"
    "print((days[-1] - days[0]).days)",
}
