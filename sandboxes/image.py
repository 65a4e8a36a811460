"""The sandbox's image: built once, from a registry where one answers, by ``debootstrap`` where not.

Both ways give Python with numpy, sympy, pandas and readers of office files, and nothing of this
project: no task, no answer, no grader. Not here: running it (``docker.py``).

Example::

    tag = ensure_image(progress=print)      # "reagent-sandbox:1f0c…", at once when it is there
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from reagent_env.sandboxes.engine import connect, engine_errors
from reagent_env.sandboxes.errors import SandboxUnavailable

Progress = Callable[[str], None]

REPOSITORY: Final = "reagent-sandbox"
BASE_IMAGE: Final = "python:3.11-slim"
DEBIAN_PACKAGES: Final = (
    "python3",
    "python3-numpy",
    "python3-sympy",
    "python3-pandas",
    "python3-openpyxl",
    "python3-pypdf",
    "python3-docx",
)
LEFT_OUT: Final = (
    "./boot/*",
    "./dev/*",
    "./proc/*",
    "./sys/*",
    "./run/*",
    "./tmp/*",
    "./root/*",
    "./etc/resolv.conf",  # the building machine's own
    "./etc/hostname",
    "./etc/apt",
    "./usr/lib/apt",
    "./usr/share/bash-completion",
    "./usr/share/bug",
    "./usr/share/doc",
    "./usr/share/info",
    "./usr/share/lintian",
    "./usr/share/locale",
    "./usr/share/man",
    "./var/cache/*",
    "./var/lib/apt",
    "./var/lib/dpkg",
    "./var/log/*",
    "./usr/lib/python3/dist-packages/numpy/*/tests",
    "./usr/lib/python3/dist-packages/pandas/tests",
    "./usr/lib/python3/dist-packages/sympy/*/tests",
)
"""What the root file system does without: papers, locales, packaging, tests of libraries."""

_ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "PYTHONDONTWRITEBYTECODE": "1",
    "LANG": "C.UTF-8",
    "HOME": "/work",
}
_DOCKERFILE: Final = Path(__file__).with_name("Dockerfile")
_REGISTRY_TIMEOUT_S: Final = 6.0
_BUILD_TIMEOUT_S: Final = 900.0
_LOCK_TIMEOUT_S: Final = 1200.0
_present: set[tuple[str, str]] = set()
_DEFAULT_MIRROR: Final = "http://deb.debian.org/debian"
_DEFAULT_SUITE: Final = "bookworm"


def image_tag() -> str:
    """Return the tag of the image this version builds: it changes when the recipe does."""
    recipe = "\n".join(
        (_DOCKERFILE.read_text(), *DEBIAN_PACKAGES, *LEFT_OUT, *map("=".join, _ENVIRONMENT.items()))
    )
    return f"{REPOSITORY}:{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"


def has_image(tag: str | None = None) -> bool:
    """Return whether the engine holds the image (``tag``, this version's by default) already.

    Raises:
        SandboxUnavailable: No engine answers.
    """
    client = connect()
    with engine_errors("looking for the sandbox image"):
        # An exact lookup by name; a listing of all images takes longer the more there are.
        import docker.errors

        try:
            client.inspect_image(tag or image_tag())
        except docker.errors.ImageNotFound:
            return False
        return True


def ensure_image(progress: Progress | None = None) -> str:
    """Return the tag of the sandbox image, building the image first if the engine lacks it.

    Two processes never build at once, and a build that fails leaves neither image nor folder.

    Args:
        progress: Called with one line of text per stage.

    Raises:
        SandboxUnavailable: No engine answers, or neither way of building works here.
    """
    tag = image_tag()
    key = (str(connect().base_url), tag)
    if key in _present:
        return tag
    if not has_image():
        tell = progress or (lambda line: None)
        with _build_lock(tell):
            if not has_image():  # another process may have built it while we waited
                _build(tag, tell)
    _present.add(key)
    return tag


def forget_image() -> None:
    """Look again for the image at the next :func:`ensure_image`: the engine said it is gone."""
    _present.clear()


def cache_folder() -> Path:
    """Return the folder in the user's cache that keeps the root file system between engines."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "reagent_env" / "sandbox"


def _build(tag: str, tell: Progress) -> None:
    began = time.monotonic()
    attempts: list[str] = []
    for way in (_import_kept, _build_from_registry, _build_from_debian):
        try:
            if way(tag, tell):
                tell(f"{tag} ready after {time.monotonic() - began:.0f} s")
                return
        except (SandboxUnavailable, OSError, subprocess.SubprocessError) as error:
            attempts.append(f"{way.__name__.strip('_').replace('_', ' ')}: {error}")
            tell(f"{attempts[-1].splitlines()[0]}; trying the next way")
    raise SandboxUnavailable(
        "The sandbox image could not be built.\n  "
        + "\n  ".join(attempts)
        + "\nEither let the engine reach a registry (docker pull "
        + f"{BASE_IMAGE}), or on Debian or Ubuntu run as root: scripts/ensure-system debootstrap"
        + " && reagent sandbox build"
    )


# --- a root file system kept from an earlier build ------------------------------------------------


def _kept_archive(tag: str) -> Path:
    return cache_folder() / f"{tag.replace(':', '-')}.tar.gz"


def _import_kept(tag: str, tell: Progress) -> bool:
    archive = _kept_archive(tag)
    if not archive.exists():
        return False
    tell(f"importing {archive.name} ({archive.stat().st_size >> 20} MiB) from the cache")
    try:
        _import_archive(archive, tag)
    except SandboxUnavailable:
        archive.unlink(missing_ok=True)  # damaged: the next way makes it anew
        raise
    return True


def _import_archive(archive: Path, tag: str) -> None:
    client = connect()
    changes = [f"ENV {name}={value}" for name, value in _ENVIRONMENT.items()]
    changes += ["WORKDIR /work", 'CMD ["python3"]', "LABEL reagent_env.image=debootstrap"]
    repository, version = tag.split(":")
    query = {"fromSrc": "-", "repo": repository, "tag": version, "changes": changes}
    with engine_errors(f"importing {archive.name}"), archive.open("rb") as stream:
        # The SDK's own import has no time limit.
        answer = client.post(
            client._url("/images/create"),
            params=query,
            data=stream,
            headers={"Content-Type": "application/x-tar"},
            timeout=_BUILD_TIMEOUT_S,
        )
        if answer.status_code >= 400 or '"error"' in answer.text:
            raise OSError(f"docker import: {answer.text[:300]}")


# --- a registry -----------------------------------------------------------------------------------


def _build_from_registry(tag: str, tell: Progress) -> bool:
    _require_base_image(tell)
    tell(f"building on {BASE_IMAGE}")
    client = connect()
    dockerfile = _DOCKERFILE.read_bytes()
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        entry = tarfile.TarInfo("Dockerfile")  # the recipe alone: no file of the host gets in
        entry.size = len(dockerfile)
        archive.addfile(entry, io.BytesIO(dockerfile))
    context.seek(0)
    deadline = time.monotonic() + _BUILD_TIMEOUT_S
    with engine_errors("building the sandbox image"):
        lines = client.build(
            fileobj=context,
            custom_context=True,
            tag=tag,
            buildargs={"BASE": BASE_IMAGE},
            labels={"reagent_env.image": "registry"},
            network_mode="host",  # an engine without a bridge has no other to reach PyPI by
            rm=True,
            forcerm=True,
            decode=True,
            timeout=int(_BUILD_TIMEOUT_S),
        )
        said: collections.deque[str] = collections.deque(maxlen=4)
        for line in lines:
            if "error" in line:
                raise SandboxUnavailable(f"docker build failed: {' | '.join(said)[-600:]}")
            said.append(line.get("stream", "").strip())
            if line.get("stream", "").startswith("Step "):
                tell(line["stream"].strip()[:100])
            if time.monotonic() > deadline:
                raise SandboxUnavailable(f"docker build took over {_BUILD_TIMEOUT_S:.0f} s")
    if not has_image(tag):
        raise SandboxUnavailable("docker build ended without an image")
    return True


def _require_base_image(tell: Progress) -> None:
    """Return if the base image is here or its registry answers the engine within seconds."""
    import docker.errors

    with engine_errors(f"looking for {BASE_IMAGE}"):
        try:
            connect().inspect_image(BASE_IMAGE)
            return
        except docker.errors.ImageNotFound:
            pass
    tell(f"asking the registry for {BASE_IMAGE}")
    with engine_errors(f"asking a registry for {BASE_IMAGE}"):
        connect(_REGISTRY_TIMEOUT_S).inspect_distribution(BASE_IMAGE)


# --- debootstrap ----------------------------------------------------------------------------------


def _build_from_debian(tag: str, tell: Progress) -> bool:
    if os.geteuid() != 0:
        raise SandboxUnavailable("debootstrap needs root")
    for program in ("debootstrap", "unshare", "tar"):
        if shutil.which(program, path=_root_path()) is None:
            raise SandboxUnavailable(
                f"{program} is not installed; run: scripts/ensure-system {program}"
            )
    folder = cache_folder()
    for leftover in folder.glob("building-*"):  # of a build that was killed; we hold the lock
        shutil.rmtree(leftover, ignore_errors=True)
    staging = folder / f"building-{os.getpid()}"
    staging.mkdir()
    try:
        root = staging / "root"
        mirror, suite = debian_source()
        tell(f"debootstrap {suite} from {mirror} (a minute or two)")
        _debootstrap(root, mirror, suite, staging / "debootstrap.log")
        tell("slimming and packing")
        _slim(root)
        archive = staging / "root.tar.gz"
        _pack(root, archive)
        tell(f"importing {archive.stat().st_size >> 20} MiB")
        _import_archive(archive, tag)
        archive.replace(_kept_archive(tag))
        for older in folder.glob(f"{REPOSITORY}-*.tar.gz"):
            if older != _kept_archive(tag):
                older.unlink(missing_ok=True)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return True


def _root_path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def _debootstrap(root: Path, mirror: str, suite: str, log: Path) -> None:
    command = [
        # Its own mount namespace: were debootstrap killed, no /proc would stay mounted in a folder
        # that is about to be deleted.
        *("unshare", "--mount", "--propagation", "private"),
        *("debootstrap", "--variant=minbase", f"--include={','.join(DEBIAN_PACKAGES)}"),
        *(() if "ubuntu" not in mirror else ("--components=main,universe",)),
        *(suite, str(root), mirror),
    ]
    environment = {**os.environ, "PATH": _root_path(), "DEBIAN_FRONTEND": "noninteractive"}
    with log.open("wb") as output:
        run = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            timeout=_BUILD_TIMEOUT_S,
            check=False,
        )
    if run.returncode != 0:
        tail = " | ".join(log.read_text(errors="replace").splitlines()[-4:])
        raise SandboxUnavailable(f"debootstrap ended with code {run.returncode}: {tail}")


def _slim(root: Path) -> None:
    (root / "work").mkdir(exist_ok=True)
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_mode & 0o6000:
            path.chmod(path.stat().st_mode & 0o1777)  # no program may change its user


def _pack(root: Path, archive: Path) -> None:
    subprocess.run(
        [
            *("tar", "--numeric-owner", "--one-file-system", "--use-compress-program=gzip -1"),
            *("--wildcards", *(f"--exclude={pattern}" for pattern in LEFT_OUT)),
            *("--create", "--file", str(archive), "--directory", str(root), "."),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_BUILD_TIMEOUT_S,
        check=True,
    )


def debian_source(etc: Path = Path("/etc")) -> tuple[str, str]:
    """Return (mirror, suite) as this machine's apt is configured, e.g. a mirror inside a company.

    Falls back to Debian's own mirror and the suite this was written for.
    """
    release = dict(
        line.split("=", 1) for line in _lines(etc / "os-release") if line.count("=") >= 1
    )
    suite = release.get("VERSION_CODENAME", "").strip('"')
    if release.get("ID", "").strip('"') not in ("debian", "ubuntu") or not suite:
        return _DEFAULT_MIRROR, _DEFAULT_SUITE
    for uri, suites, components in _apt_entries(etc / "apt"):
        # The archive itself, not its updates or security parts, nor somebody's own packages.
        if suite in suites and "main" in components and uri.startswith(("http://", "https://")):
            return uri, suite
    return _DEFAULT_MIRROR, _DEFAULT_SUITE


def _apt_entries(apt: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    for file in sorted((apt / "sources.list.d").glob("*.sources")):
        for stanza in "\n".join(
            line for line in _lines(file, keep_blank=True) if not line.startswith("#")
        ).split("\n\n"):
            fields = {
                name.strip().lower(): value.split()
                for name, _, value in (line.partition(":") for line in stanza.splitlines())
            }
            if "deb" in fields.get("types", []) and fields.get("enabled") != ["no"]:
                for uri in fields.get("uris", []):
                    yield uri, fields.get("suites", []), fields.get("components", [])
    for file in (apt / "sources.list", *sorted((apt / "sources.list.d").glob("*.list"))):
        for line in _lines(file):
            words = line.split("#")[0].split()
            if words[:1] != ["deb"]:
                continue
            while len(words) > 1 and words[1].startswith("["):  # [arch=… signed-by=…]
                closing = next((i for i, word in enumerate(words) if word.endswith("]")), 1)
                del words[1 : closing + 1]
            if len(words) >= 4:
                yield words[1], [words[2]], words[3:]


def _lines(file: Path, *, keep_blank: bool = False) -> list[str]:
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return []
    return [line for line in lines if keep_blank or line.strip()]


# --- one build at a time --------------------------------------------------------------------------

_thread_lock = threading.Lock()


@contextlib.contextmanager
def _build_lock(tell: Progress) -> Iterator[None]:
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    if not _thread_lock.acquire(timeout=_LOCK_TIMEOUT_S):
        raise SandboxUnavailable("Another thread has been building the sandbox image for too long.")
    try:
        with (folder / "build.lock").open("w") as lock:
            told = False
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not told:
                        tell("another process builds the image; waiting for it")
                        told = True
                    if time.monotonic() > deadline:
                        raise SandboxUnavailable(
                            f"Another process has held {folder / 'build.lock'} for over "
                            f"{_LOCK_TIMEOUT_S:.0f} s; end it, then try again."
                        ) from None
                    time.sleep(0.2)
            yield  # the lock goes with the file
    finally:
        _thread_lock.release()


def image_details() -> dict[str, Any]:
    """Return the image's tag, size in MiB and how it was built, for ``reagent doctor``."""
    client = connect()
    with engine_errors("reading the sandbox image"):
        details = client.inspect_image(image_tag())
    return {
        "tag": image_tag(),
        "mib": details["Size"] >> 20,
        "built_by": (details.get("Config", {}).get("Labels") or {}).get("reagent_env.image", "?"),
    }
