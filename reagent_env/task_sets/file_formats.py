"""Writes small csv, xlsx, docx, pdf and zip files whose bytes depend on their content alone.

No time stamp, no library version, no compression: a task's id is a hash over its files, and must be
the same everywhere. Not here: reading files (:mod:`reagent_env.tools.file_reader`).
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

Cell = str | int
Rows = Sequence[Sequence[Cell]]

_XML = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_OPEN = "http://schemas.openxmlformats.org"
_TYPES = f'{_XML}<Types xmlns="{_OPEN}/package/2006/content-types">'
_RELATIONS = f'{_XML}<Relationships xmlns="{_OPEN}/package/2006/relationships">'
_RELATION = f"{_OPEN}/officeDocument/2006/relationships"
_XML_TYPE = '<Default Extension="xml" ContentType="application/xml"/>'
_RELS_TYPE = (
    '<Default Extension="rels" '
    'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
)


def csv_bytes(rows: Rows, delimiter: str = ",") -> bytes:
    """A csv file in UTF-8 with ``\\n`` line ends."""
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def zip_bytes(files: Mapping[str, bytes]) -> bytes:
    """A zip archive of the files in their order, stored, dated 1980."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    return buffer.getvalue()


def xlsx_bytes(sheets: Mapping[str, Rows]) -> bytes:
    """A workbook: sheet name → rows; numbers are numbers, all else is text."""
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    numbered = list(enumerate(sheets.items(), start=1))
    parts = {
        "[Content_Types].xml": f"{_TYPES}{_RELS_TYPE}{_XML_TYPE}"
        f'<Override PartName="/xl/workbook.xml" ContentType="{kind}.sheet.main+xml"/>'
        + "".join(
            f'<Override PartName="/xl/worksheets/sheet{n}.xml" ContentType="{kind}.worksheet+xml"/>'
            for n, _ in numbered
        )
        + "</Types>",
        "_rels/.rels": f'{_RELATIONS}<Relationship Id="rId1" Type="{_RELATION}/officeDocument" '
        'Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'{_XML}<workbook xmlns="{_OPEN}/spreadsheetml/2006/main" '
        f'xmlns:r="{_RELATION}"><sheets>'
        + "".join(
            f'<sheet name="{escape(name)}" sheetId="{n}" r:id="rId{n}"/>'
            for n, (name, _) in numbered
        )
        + "</sheets></workbook>",
        "xl/_rels/workbook.xml.rels": _RELATIONS
        + "".join(
            f'<Relationship Id="rId{n}" Type="{_RELATION}/worksheet" '
            f'Target="worksheets/sheet{n}.xml"/>'
            for n, _ in numbered
        )
        + "</Relationships>",
    }
    for n, (_, rows) in numbered:
        parts[f"xl/worksheets/sheet{n}.xml"] = (
            f'{_XML}<worksheet xmlns="{_OPEN}/spreadsheetml/2006/main"><sheetData>'
            + "".join(_sheet_row(number, row) for number, row in enumerate(rows, start=1))
            + "</sheetData></worksheet>"
        )
    return zip_bytes({name: text.encode() for name, text in parts.items()})


def _sheet_row(number: int, row: Sequence[Cell]) -> str:
    cells = []
    for column, value in enumerate(row):
        place = f"{_column_name(column)}{number}"
        if isinstance(value, int):
            cells.append(f'<c r="{place}"><v>{value}</v></c>')
        else:
            cells.append(f'<c r="{place}" t="inlineStr"><is><t>{escape(value)}</t></is></c>')
    return f'<row r="{number}">{"".join(cells)}</row>'


def _column_name(column: int) -> str:
    return (
        chr(65 + column) if column < 26 else _column_name(column // 26 - 1) + chr(65 + column % 26)
    )


def docx_bytes(title: str, rows: Rows) -> bytes:
    """A document: a title paragraph and one table."""
    text = "".join(
        "<w:tr>"
        + "".join(
            f"<w:tc><w:p><w:r><w:t>{escape(str(cell))}</w:t></w:r></w:p></w:tc>" for cell in row
        )
        + "</w:tr>"
        for row in rows
    )
    document = (
        f'{_XML}<w:document xmlns:w="{_OPEN}/wordprocessingml/2006/main"><w:body>'
        f"<w:p><w:r><w:t>{escape(title)}</w:t></w:r></w:p>"
        f"<w:tbl>{text}</w:tbl><w:p/></w:body></w:document>"
    )
    kind = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
    parts = {
        "[Content_Types].xml": f"{_TYPES}{_RELS_TYPE}{_XML_TYPE}"
        f'<Override PartName="/word/document.xml" ContentType="{kind}"/></Types>',
        "_rels/.rels": f'{_RELATIONS}<Relationship Id="rId1" Type="{_RELATION}/officeDocument" '
        'Target="word/document.xml"/></Relationships>',
        "word/document.xml": document,
    }
    return zip_bytes({name: content.encode() for name, content in parts.items()})


def pdf_bytes(title: str, rows: Rows, lines_a_page: int = 48) -> bytes:
    """A PDF of text: the title, then a line a row, its cells joined by `` | ``; ASCII only."""
    lines = [title, *(" | ".join(map(str, row)) for row in rows)]
    pages = [lines[i : i + lines_a_page] for i in range(0, len(lines), lines_a_page)]
    first = 4
    kids = " ".join(f"{first + 2 * i} 0 R" for i in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Courier >>",
    ]
    for i, page in enumerate(pages):
        shown = "".join(f"({_pdf_text(line)}) Tj T*\n" for line in page)
        stream = f"BT /F1 8 Tf 15 TL 40 770 Td\n{shown}ET"
        objects.append(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 842 800] "
            f"/Resources << /Font << /F1 3 0 R >> >> /Contents {first + 2 * i + 1} 0 R >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    out = bytearray(b"%PDF-1.4\n")
    offsets = []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode("ascii")
    start = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    out += "".join(f"{offset:010d} 00000 n \n" for offset in offsets).encode()
    out += (
        f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n".encode()
    )
    return bytes(out)


def _pdf_text(line: str) -> str:
    return line.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
