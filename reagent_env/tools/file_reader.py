"""The ``file_reader`` tool: a task's files as text, in pieces that a model can read.

Reads text, csv, json, html, xlsx, docx, pdf and zip archives (``archive.zip::inner.csv``). It sees the
task's own files and nothing of the host; sizes and decompression are bounded. Not here: computing
with the files (the ``python`` tool finds them in its working directory).
"""

from __future__ import annotations

import difflib
import html.parser
import io
import itertools
import json
import logging
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any, NoReturn
from xml.etree import ElementTree

from reagent_env.errors import ToolError
from reagent_env.task import Task
from reagent_env.tool_definition import tool

PIECE_CHARS = 6_000
"""Characters shown at once; ``offset`` gets the next piece."""
MAX_FILE_BYTES = 32 * 2**20
"""Of one file, compressed or not."""
MAX_UNPACKED_BYTES = 64 * 2**20
MAX_ENTRIES = 10_000
MAX_RATIO = 200
"""Unpacked to packed bytes of one entry; beyond it (and 1 MiB) an archive counts as a bomb."""
MAX_TEXT_CHARS = 4_000_000
MAX_PAGES = 50
"""PDF pages read in one call."""
_MAX_NESTING = 3
_TEXT_ENDINGS = {"txt", "md", "csv", "tsv", "json", "jsonl", "xml", "yaml", "yml", "toml", "log"}
_TEXT_ENDINGS |= {"py", "rst", "ini", "tex", "sql", ""}


@tool
def file_reader(path: str, part: str = "", offset: int = 0, *, task: Task) -> str:
    """Read one of the task's files as text, or list the files there are.

    Args:
        path: A file such as "report.pdf", a file in an archive such as "data.zip::inner.csv", an
            archive (lists what is in it), or "." to list all files.
        part: Sheet name of a workbook, or pages of a PDF such as "3" or "2-5"; empty for all.
        offset: Character at which to start, to go on reading a long file.
    """
    if offset < 0:
        raise ToolError(f"offset must be 0 or more, got {offset}.")
    wanted = path.strip()
    if wanted in ("", ".", "/", "./", "/work", "/work/"):
        return _listing("Files", {name: len(blob) for name, blob in task.files.items()})
    name, content = task_file(task, wanted)
    text = _as_text(name, content, part.strip())
    return _piece(wanted, text, offset)


def task_file(task: Task, path: str, most_bytes: int = MAX_FILE_BYTES) -> tuple[str, bytes]:
    """The own name and the content of one of the task's files, ``archive.zip::inner.png`` included.

    Raises:
        ToolError: outside the task's folder, not there, damaged, or longer than ``most_bytes``.
    """
    names = path.strip().split("::")
    if len(names) > _MAX_NESTING:
        raise ToolError(f"At most {_MAX_NESTING - 1} archives inside each other, got {path!r}.")
    content = _pick(task.files, _inside(names[0]), "the task")
    for outer, inner in itertools.pairwise(names):
        content = _from_archive(content, outer, inner.strip().lstrip("/"))
    if len(content) > most_bytes:
        raise ToolError(f"{path!r} has {len(content)} bytes; at most {most_bytes} can be read.")
    return names[-1], content


def _inside(name: str) -> str:
    """The path relative to the task's folder; anything that leaves it is refused."""
    path = PurePosixPath(name.strip().replace("\\", "/"))
    if path.is_absolute() and path.parts[:2] == ("/", "work"):
        path = PurePosixPath(*path.parts[2:])
    if path.is_absolute() or ".." in path.parts:
        raise ToolError(
            f"{name!r} is outside the task's folder; give a path relative to it, or '.' to list "
            "its files."
        )
    return str(path)


def _pick(files: Mapping[str, bytes], name: str, place: str) -> bytes:
    normal = {str(PurePosixPath(known)): blob for known, blob in files.items()}
    if name in normal:
        return normal[name]
    _no_file(name, list(files), place)


def _no_file(name: str, known: list[str], place: str) -> NoReturn:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    shown = ", ".join(sorted(known)[:50]) or "none"
    raise ToolError(f"No file {name!r} in {place}.{hint} Files: {shown}.")


def _listing(title: str, sizes: Mapping[str, int]) -> str:
    if not sizes:
        return f"{title}: none."
    return f"{title}:\n" + "\n".join(f"{name} ({sizes[name]} bytes)" for name in sorted(sizes))


def _piece(path: str, text: str, offset: int) -> str:
    if offset and offset >= len(text):
        raise ToolError(f"offset {offset} is past the end: {path!r} has {len(text)} characters.")
    shown = text[offset : offset + PIECE_CHARS]
    left = len(text) - offset - len(shown)
    if left > 0:
        shown += f"\n[{left} more characters; go on with offset={offset + len(shown)}]"
    return shown or f"{path!r} is empty."


def _open_archive(content: bytes, name: str) -> zipfile.ZipFile:
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, OSError) as error:
        raise ToolError(f"{name!r} cannot be opened as an archive: {error}.") from None
    entries = archive.infolist()
    unpacked = sum(entry.file_size for entry in entries)
    if len(entries) > MAX_ENTRIES or unpacked > MAX_UNPACKED_BYTES:
        raise ToolError(
            f"{name!r} holds {len(entries)} entries of {unpacked} bytes unpacked; at most "
            f"{MAX_ENTRIES} entries and {MAX_UNPACKED_BYTES} bytes are read. Read another file."
        )
    for entry in entries:
        if entry.file_size > max(2**20, MAX_RATIO * max(entry.compress_size, 1)):
            raise ToolError(
                f"{entry.filename!r} in {name!r} unpacks to {entry.file_size} bytes, more than "
                f"{MAX_RATIO} times its packed size; it is not read. Read another file."
            )
    return archive


def _entry(archive: zipfile.ZipFile, name: str, archive_name: str) -> bytes:
    """One entry, never more bytes than its header and the bound say."""
    try:
        info = archive.getinfo(name)
        with archive.open(info) as stream:
            content = stream.read(min(info.file_size, MAX_FILE_BYTES) + 1)
    except KeyError:
        known = [n for n in archive.namelist() if not n.endswith("/")]
        _no_file(name, known, repr(archive_name))
    except (RuntimeError, zipfile.BadZipFile, NotImplementedError, EOFError, OSError) as error:
        raise ToolError(f"{name!r} in {archive_name!r} cannot be unpacked: {error}.") from None
    except Exception as error:  # zlib.error, lzma.LZMAError: the archive is damaged
        raise ToolError(f"{name!r} in {archive_name!r} is damaged: {error}.") from None
    if len(content) > min(info.file_size, MAX_FILE_BYTES):
        raise ToolError(f"{name!r} in {archive_name!r} is longer than its header says or too long.")
    return content


def _from_archive(content: bytes, outer: str, inner: str) -> bytes:
    with _open_archive(content, outer) as archive:
        return _entry(archive, inner, outer)


def _as_text(name: str, content: bytes, part: str) -> str:
    ending = PurePosixPath(name).suffix.lower().lstrip(".")
    if part and ending not in ("xlsx", "xlsm", "pdf"):
        raise ToolError(f"part is for workbooks and PDFs; read {name!r} without it.")
    if ending == "zip":
        with _open_archive(content, name) as archive:
            sizes = {i.filename: i.file_size for i in archive.infolist() if not i.is_dir()}
        return _listing(f"Files in {name} (read one as {name}::<file>)", sizes)
    if ending in ("xlsx", "xlsm"):
        return _workbook(name, content, part)
    if ending == "docx":
        return _document(name, content)
    if ending == "pdf":
        return _pdf(name, content, part)
    if ending not in _TEXT_ENDINGS | {"html", "htm"} and b"\0" in content[:4096]:
        raise ToolError(
            f"{name!r} is a binary file that this tool cannot read; it reads text, csv, json, html, "
            "xlsx, docx, pdf and zip. Use the python tool for others."
        )
    text = content.decode("utf-8-sig", errors="replace")[:MAX_TEXT_CHARS]
    if ending in ("html", "htm"):
        reader = _HtmlText()
        reader.feed(text[:1_000_000])
        reader.close()
        return "\n".join(
            line for raw in "".join(reader.pieces).split("\n") if (line := raw.strip())
        )
    if ending == "json":
        try:
            return json.dumps(json.loads(text), indent=1, ensure_ascii=False)
        except (ValueError, RecursionError):
            return text
    return text


def _workbook(name: str, content: bytes, part: str) -> str:
    import openpyxl

    with _open_archive(content, name) as archive:
        for entry in archive.namelist():
            if entry.endswith((".xml", ".rels")) and b"<!ENTITY" in _entry(archive, entry, name):
                raise ToolError(f"{name!r} declares XML entities; it is not read.")
    try:
        book = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True)
    except Exception as error:
        raise ToolError(f"{name!r} cannot be read as a workbook: {error}.") from None
    try:
        if part and part not in book.sheetnames:
            raise ToolError(f"No sheet {part!r} in {name!r}. Sheets: {', '.join(book.sheetnames)}.")
        lines: list[str] = []
        size = 0
        for sheet_name in [part] if part else book.sheetnames:
            sheet = book[sheet_name]
            lines.append(f"## Sheet {sheet_name}")
            for row in _sheet_rows(sheet):
                line = ",".join("" if value is None else _cell(value) for value in row)
                size += len(line)
                if size > MAX_TEXT_CHARS:
                    return "\n".join([*lines, "[cut: the workbook is too long; use python]"])
                lines.append(line)
    except ToolError:
        raise
    except Exception as error:
        raise ToolError(f"{name!r} is damaged: {type(error).__name__}: {error}.") from None
    finally:
        book.close()
    return "\n".join(lines)


def _sheet_rows(sheet: Any) -> Iterable[tuple[object, ...]]:
    """The values of a sheet; a chart sheet has none."""
    return sheet.iter_rows(values_only=True) if hasattr(sheet, "iter_rows") else ()


def _cell(value: object) -> str:
    text = str(value)
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\n') else text


def _document(name: str, content: bytes) -> str:
    word = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
    with _open_archive(content, name) as archive:
        xml = _entry(archive, "word/document.xml", name)
    if b"<!DOCTYPE" in xml or b"<!ENTITY" in xml:
        raise ToolError(f"{name!r} declares XML entities, which no document needs; it is not read.")
    try:
        body = ElementTree.fromstring(xml).find(f"{word}body")
    except ElementTree.ParseError as error:
        raise ToolError(f"{name!r} cannot be read as a document: {error}.") from None

    def words(element: ElementTree.Element) -> str:
        return "".join(
            node.text or "" if node.tag == f"{word}t" else "\t" if node.tag == f"{word}tab" else ""
            for node in element.iter()
        )

    lines = []
    for block in body if body is not None else ():
        if block.tag == f"{word}tbl":
            lines += [
                " | ".join(words(cell) for cell in row.findall(f"{word}tc"))
                for row in block.findall(f"{word}tr")
            ]
        elif block.tag == f"{word}p":
            lines.append(words(block))
    return "\n".join(lines).strip()[:MAX_TEXT_CHARS]


def _pdf(name: str, content: bytes, part: str) -> str:
    import pypdf

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    try:
        reader = pypdf.PdfReader(io.BytesIO(content))
        count = len(reader.pages)
        first, last = _page_range(part, count, name)
        pages = [
            f"## Page {number} of {count}\n{reader.pages[number - 1].extract_text()}"
            for number in range(first, last + 1)
        ]
    except ToolError:
        raise
    except Exception as error:
        raise ToolError(f"{name!r} cannot be read as a PDF: {error}.") from None
    if last < count and not part:
        pages.append(f'[{count - last} more pages; read them with part="{last + 1}-{count}"]')
    return "\n".join(pages)[:MAX_TEXT_CHARS]


def _page_range(part: str, count: int, name: str) -> tuple[int, int]:
    if not part:
        return 1, min(count, MAX_PAGES)
    first, dash, last = part.partition("-")
    if not (
        first.isascii() and first.isdigit() and (not dash or (last.isascii() and last.isdigit()))
    ):
        raise ToolError(f'part of a PDF is a page or a range such as "3" or "2-5", got {part!r}.')
    begin, end = int(first), int(last or first)
    if not 1 <= begin <= end <= count:
        raise ToolError(f"{name!r} has pages 1 to {count}, got part={part!r}.")
    if end - begin >= MAX_PAGES:
        raise ToolError(f"At most {MAX_PAGES} pages at once, got part={part!r}.")
    return begin, end


class _HtmlText(html.parser.HTMLParser):
    """Collects the visible text of a page."""

    _HIDDEN = frozenset({"script", "style", "head", "template"})
    _BREAKS = frozenset({"p", "br", "div", "tr", "li", "table", "h1", "h2", "h3", "h4", "ul", "ol"})

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Count what hides text, and break lines."""
        self._hidden += tag in self._HIDDEN
        if tag in self._BREAKS:
            self.pieces.append("\n")
        elif tag in ("td", "th"):
            self.pieces.append(" | ")

    def handle_endtag(self, tag: str) -> None:
        """Show text again after what hid it, and end the line."""
        if tag in self._BREAKS:
            self.pieces.append("\n")
        self._hidden = max(0, self._hidden - (tag in self._HIDDEN))

    def handle_data(self, data: str) -> None:
        """Keep visible text."""
        if not self._hidden:
            self.pieces.append(data)
