"""The image: where its packages come from, what it holds, and one build at a time."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from reagent_env.sandboxes import image
from reagent_env.sandboxes.docker import DockerSandbox
from reagent_env.sandboxes.engine import connect, docker_problem
from reagent_env.sandboxes.errors import SandboxUnavailable
from reagent_env.sandboxes.image import debian_source, ensure_image, image_tag

DEB822 = """\
Types: deb
# a comment in between
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib

Types: deb
URIs: http://security.example/debian-security
Suites: bookworm-security
Components: main
"""


def machine(folder: Path, *, os_release: str, **apt: str) -> Path:
    (folder / "apt/sources.list.d").mkdir(parents=True)
    (folder / "os-release").write_text(os_release)
    for name, text in apt.items():
        target = {"listed": "sources.list", "deb822": "sources.list.d/debian.sources"}[name]
        (folder / "apt" / target).write_text(text)
    return folder


BOOKWORM = 'ID=debian\nVERSION_CODENAME=bookworm\nPRETTY_NAME="Debian = 12"\n'


def test_the_mirror_is_the_one_apt_uses(tmp_path: Path) -> None:
    etc = machine(tmp_path, os_release=BOOKWORM, deb822=DEB822)
    assert debian_source(etc) == ("http://mirror.example/debian", "bookworm")


def test_the_older_format_is_read_too_and_foreign_sources_are_passed_over(tmp_path: Path) -> None:
    listed = (
        "# deb http://commented.example/debian bookworm main\n"
        "deb-src http://sources.example/debian bookworm main\n"
        "deb http://security.example/debian bookworm-security main\n"
        "deb https://vendor.example/apt bookworm stable\n"
        "deb [ arch=amd64 signed-by=/k.gpg ] http://mirror.example/debian bookworm main # ours\n"
    )
    etc = machine(tmp_path, os_release=BOOKWORM, listed=listed)
    assert debian_source(etc) == ("http://mirror.example/debian", "bookworm")


def test_a_disabled_source_is_not_used(tmp_path: Path) -> None:
    etc = machine(tmp_path, os_release=BOOKWORM, deb822="Enabled: no\n" + DEB822)
    assert debian_source(etc) == ("http://deb.debian.org/debian", "bookworm")


def test_elsewhere_debians_own_mirror_is_used(tmp_path: Path) -> None:
    etc = machine(tmp_path, os_release="ID=fedora\nVERSION_CODENAME=\n")
    assert debian_source(etc) == ("http://deb.debian.org/debian", "bookworm")
    assert debian_source(tmp_path / "none") == ("http://deb.debian.org/debian", "bookworm")


def test_the_tag_changes_with_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    before = image_tag()
    assert before == image_tag()
    monkeypatch.setattr(image, "DEBIAN_PACKAGES", (*image.DEBIAN_PACKAGES, "python3-scipy"))
    assert image_tag() != before


def test_the_dockerfile_copies_nothing_of_this_project_in() -> None:
    recipe = Path(image.__file__).with_name("Dockerfile").read_text()
    words = [line.split()[0] for line in recipe.splitlines() if line.strip()]
    assert "COPY" not in words
    assert "ADD" not in words


def test_one_process_builds_while_another_waits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    program = (
        "import sys\nfrom reagent_env.sandboxes import image\n"
        "with image._build_lock(print):\n    print('held', flush=True)\n    sys.stdin.read()"
    )
    said: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "held\n"
        entered = threading.Event()

        def enter() -> None:
            with image._build_lock(said.append):
                entered.set()

        thread = threading.Thread(target=enter)
        thread.start()
        assert not entered.wait(0.5)
        other.kill()  # a lock dies with its holder
        assert entered.wait(5)
        thread.join()
    assert said == ["another process builds the image; waiting for it"]


def test_a_failed_build_says_all_that_was_tried_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def no_registry(tag: str, tell: image.Progress) -> bool:
        raise SandboxUnavailable("no registry answers")

    def broken_mirror(root: Path, *rest: object) -> None:
        (root / "half").mkdir(parents=True)
        raise SandboxUnavailable("the mirror went away")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(image, "_build_from_registry", no_registry)
    monkeypatch.setattr(image, "_debootstrap", broken_mirror)
    monkeypatch.setattr(image.os, "geteuid", lambda: 0)
    monkeypatch.setattr(image.shutil, "which", lambda name, path=None: f"/usr/bin/{name}")
    image.cache_folder().mkdir(parents=True)
    (image.cache_folder() / "building-1").mkdir()  # of a build that was killed
    with pytest.raises(SandboxUnavailable, match=r"(?s)no registry answers.*the mirror went away"):
        image._build("reagent-sandbox:test", lambda line: None)
    assert list(image.cache_folder().iterdir()) == []


@pytest.mark.docker
@pytest.mark.skipif(docker_problem() is not None, reason=f"no Docker: {docker_problem()}")
class TestOnTheEngine:
    def test_an_image_that_is_there_is_found_at_once(self) -> None:
        ensure_image()
        image.forget_image()
        lines: list[str] = []
        began = time.monotonic()
        assert ensure_image(lines.append) == image_tag()
        assert time.monotonic() - began < 1.0
        assert lines == []

    def test_it_has_the_libraries_and_nothing_that_knows_answers(self) -> None:
        look = (
            "import importlib.util as u\n"
            "{n: u.find_spec(n) is not None for n in ('numpy', 'sympy', 'pandas', 'openpyxl',"
            " 'pypdf', 'docx', 'reasoning_gym', 'reagent_env', 'math_verify')}"
        )
        with DockerSandbox() as sandbox:
            found = json.loads(
                (sandbox.python(look).value or "")
                .replace("'", '"')
                .replace("True", "true")
                .replace("False", "false")
            )
            assert [name for name, there in found.items() if not there] == [
                "reasoning_gym",
                "reagent_env",
                "math_verify",
            ]
            setuid = sandbox.shell("find / -xdev -type f -perm /6000 2>/dev/null").output
            assert setuid == ""

    def test_a_lost_image_is_imported_again_from_the_cache(self, tmp_path: Path) -> None:
        """With a tiny archive of its own, so that nobody else's image is touched."""
        import tarfile

        tag = "reagent-sandbox:test-import"
        archive = tmp_path / "root.tar.gz"
        (tmp_path / "hello").write_text("hello")
        with tarfile.open(archive, "w:gz") as packed:
            packed.add(tmp_path / "hello", "hello")
        try:
            image._import_archive(archive, tag)
            settings = connect().inspect_image(tag)["Config"]
            assert "HOME=/work" in settings["Env"]
            assert settings["WorkingDir"] == "/work"
        finally:
            connect().remove_image(tag, force=True)

    def test_a_damaged_archive_is_refused_and_thrown_away(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        tag = "reagent-sandbox:test-damaged"
        image.cache_folder().mkdir(parents=True)
        image._kept_archive(tag).write_bytes(b"\x1f\x8b not an archive")
        with pytest.raises(SandboxUnavailable):
            image._import_kept(tag, lambda line: None)
        assert not image._kept_archive(tag).exists()
