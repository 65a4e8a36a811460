"""Which backend is chosen, and what is said where none works."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from reagent_env.sandboxes import Limits, SandboxUnavailable, get_pool, make_sandbox, select
from reagent_env.sandboxes.engine import docker_problem


@pytest.fixture(autouse=True)
def fresh_pools() -> Iterator[None]:
    yield
    for pool in select._pools.values():
        pool.close()
    select._pools.clear()


def choose(
    monkeypatch: pytest.MonkeyPatch, docker: str | None, embedded: str | None, kind: str = "auto"
) -> str:
    monkeypatch.setattr(select, "docker_ready_problem", lambda: docker)
    monkeypatch.setattr(select, "embedded_problem", lambda: embedded)
    return select.resolve_kind(kind)


def test_docker_is_chosen_where_it_answers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert choose(monkeypatch, None, None) == "docker"
    assert "sandbox auto: docker" in caplog.text


def test_the_embedded_one_is_chosen_where_docker_does_not_and_it_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert choose(monkeypatch, "no engine", None) == "embedded"
    assert "not docker: no engine" in caplog.text


def test_never_none_and_never_the_weakest_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SandboxUnavailable) as caught:
        choose(monkeypatch, "run scripts/ensure-docker", "apt-get install bubblewrap")
    assert "run scripts/ensure-docker" in str(caught.value)
    assert "apt-get install bubblewrap" in str(caught.value)


def test_a_mistyped_kind_is_told_what_was_meant() -> None:
    with pytest.raises(ValueError, match=r"Unknown sandbox 'dokcer'.*Did you mean 'docker'\?"):
        make_sandbox("dokcer")
    with pytest.raises(ValueError, match="known: auto, docker, embedded, process, or a factory"):
        get_pool("none")


@pytest.mark.parametrize("kind", ["embedded", "process"])
def test_off_linux_only_docker_is_offered(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(select.sys, "platform", "darwin")
    with pytest.raises(SandboxUnavailable, match="needs Linux; on darwin use Docker"):
        make_sandbox(kind)
    assert "Docker Desktop" in (select.embedded_problem() or "")


def test_a_pool_of_a_backend_that_does_not_work_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(select, "docker_ready_problem", lambda: "no engine; run this")
    with pytest.raises(SandboxUnavailable, match="no engine; run this"):
        get_pool("docker")


@pytest.mark.docker
@pytest.mark.skipif(docker_problem() is not None, reason=f"no Docker: {docker_problem()}")
class TestOnTheEngine:
    def test_a_sandbox_of_ones_own_says_which_backend_it_is(self) -> None:
        with make_sandbox("docker", Limits(memory_mb=128)) as sandbox:
            assert sandbox.capabilities.backend == "docker"
            assert sandbox.limits.memory_mb == 128
            assert sandbox.python("6 * 7").value == "42"

    def test_one_pool_is_shared_by_kind_and_limits(self) -> None:
        pool = get_pool("docker")
        assert get_pool("docker", Limits()) is pool
        assert get_pool("docker", Limits(memory_mb=128)) is not pool
        assert pool.backend == "docker"
        assert pool.size == 0  # known without making one
        pool.close()
        assert get_pool("docker") is not pool

    def test_a_factory_makes_a_pool_of_its_own(self) -> None:
        def factory() -> select.Sandbox:
            return make_sandbox("docker")

        pool = get_pool(factory)
        assert get_pool(factory) is pool
        assert pool.backend == "custom"
        with pool.acquire() as sandbox:
            assert sandbox.python("1 + 1").value == "2"


@pytest.mark.skipif(select.embedded_problem() is not None, reason="no embedded sandbox here")
def test_the_embedded_one_is_made_by_name() -> None:
    with make_sandbox("embedded") as sandbox:
        assert sandbox.capabilities.backend == "bubblewrap"
        assert sandbox.python("6 * 7").value == "42"
