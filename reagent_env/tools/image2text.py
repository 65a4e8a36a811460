"""The ``image2text`` tool: what a picture among the task's files shows.

Two engines: ``tesseract`` (Debian's; reads the text in it and nothing else), and a vision model
behind any OpenAI-compatible server, which answers questions about it. Pictures are untrusted: they
are decoded in a bounded process first, and only the plain PNG that comes out goes on.
"""

from __future__ import annotations

import base64
import os
from typing import Any

from reagent_env.errors import ToolBackendError, ToolError
from reagent_env.needs import Need, extra, require
from reagent_env.task import Task
from reagent_env.tool_definition import Tool, tool
from reagent_env.tools.bounded_process import Bounds, ProgramFailed, beside, run_bounded
from reagent_env.tools.decode_picture import REFUSED
from reagent_env.tools.file_reader import task_file
from reagent_env.tools.served_media import (
    cut,
    media_client,
    server_and_model,
    server_error,
    text_of,
)

SERVER = "REAGENT_IMAGE2TEXT"
"""Environment variable: the vision model behind the tool where its maker names none, ``URL#model``."""
MAX_IMAGE_BYTES = 20 * 2**20
MAX_PIXELS = 50_000_000
"""A picture of more is not decoded."""
LONGEST_SIDE = 2048
"""Pixels; a larger picture is made smaller."""
MAX_QUERY_CHARS = 2_000
PILLOW = extra("media", "PIL")
TESSERACT = Need(
    "program",
    ("tesseract",),
    f"apt-get install tesseract-ocr (or set {SERVER}=URL#model for a vision model)",
)


def make_image2text_tool(
    server: str | None = None, *, language: str = "eng", timeout_s: float = 60.0
) -> Tool:
    """The tool ``image2text(path: str, query: str = "")``.

    Example: ``make_image2text_tool("http://127.0.0.1:8000/v1#qwen2.5-vl-7b")``.

    Args:
        server: A vision model, ``URL#model``; by default what ``REAGENT_IMAGE2TEXT`` names, else
            tesseract.
        language: What tesseract reads, such as ``eng+deu``; each needs its package.
        timeout_s: Seconds for one picture.

    Raises:
        NeedMissing: neither a server nor tesseract, or no pillow to decode with.
        ValueError: ``server`` is no URL with a model.
    """
    server = server or os.environ.get(SERVER) or None
    require("image2text", PILLOW, *([TESSERACT] if server is None else []))
    model = None if server is None else _VisionModel(server, timeout_s)

    @tool(name="image2text", timeout_s=timeout_s + 30.0)
    def image2text(path: str, query: str = "", *, task: Task) -> str:
        """Say what a picture among the task's files shows: the text in it, or an answer about it.

        Args:
            path: The picture, such as "chart.png" or "archive.zip::page.jpg".
            query: What to find out about it; empty for all its text.
        """
        name, content = task_file(task, path, MAX_IMAGE_BYTES)
        png = plain_picture(name, content)
        asked = " ".join(query.split())[:MAX_QUERY_CHARS]
        if model is not None:
            return model.say(name, png, asked)
        return _read_text(name, png, language, bool(asked), timeout_s)

    return image2text


def plain_picture(name: str, content: bytes) -> bytes:
    """An untrusted picture as a plain PNG.

    Raises:
        ToolError: it is no picture, damaged, cut short, or too large.
        ToolBackendError: the decoder itself cannot be run.
    """
    command = [*beside("decode_picture.py"), str(MAX_PIXELS), str(LONGEST_SIDE)]
    try:
        return run_bounded(command, content, Bounds(seconds=30.0, memory_bytes=2 * 2**30))
    except ProgramFailed as error:
        if error.status == REFUSED or error.timed_out:
            raise ToolError(f"{name!r} cannot be read as a picture: {error}.") from None
        raise ToolBackendError(f"Decoding {name!r} failed: {error}") from error


def _read_text(name: str, png: bytes, language: str, asked: bool, timeout_s: float) -> str:
    command = ["tesseract", "stdin", "stdout", "-l", language]
    try:
        found = run_bounded(command, png, Bounds(seconds=timeout_s, memory_bytes=2 * 2**30))
    except ProgramFailed as error:
        if error.timed_out:
            raise ToolError(f"Reading the text in {name!r} took too long: {error}.") from None
        raise ToolBackendError(f"tesseract failed on {name!r}: {error}") from error
    lines = [line.rstrip() for line in found.decode("utf-8", "replace").split("\n")]
    text = "\n".join(line for line in lines if line.strip())
    if not text:
        return f"No text found in {name}. This tool only reads text; it does not describe pictures."
    note = "This tool only reads text; it answers no questions about pictures.\n" if asked else ""
    return f"{note}Text in {name}:\n{cut(text)}"


class _VisionModel:
    """A chat model that takes pictures."""

    def __init__(self, server: str, timeout_s: float) -> None:
        self.base_url, self.model = server_and_model(server, SERVER)
        self.timeout_s = timeout_s

    def say(self, name: str, png: bytes, asked: str) -> str:
        import openai

        uri = "data:image/png;base64," + base64.b64encode(png).decode("ascii")
        wanted = asked or "Write down all text in the picture, then describe what it shows."
        content: Any = [
            {"type": "text", "text": wanted},
            {"type": "image_url", "image_url": {"url": uri}},
        ]
        with media_client(self.base_url, self.timeout_s) as client:
            try:
                reply = client.chat.completions.create(
                    model=self.model,
                    messages=[{"role": "user", "content": content}],
                    temperature=0.0,
                    max_tokens=1024,
                )
                said = reply.choices[0].message.content
            except openai.OpenAIError as error:
                raise server_error(error, name, self.base_url) from error
            except (AttributeError, IndexError, TypeError, ValueError) as error:
                raise ToolBackendError(
                    f"The server at {self.base_url} answered no completion ({error})."
                ) from error
        return text_of(said, self.base_url)
