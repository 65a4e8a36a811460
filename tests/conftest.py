"""Docker tests fail, rather than skip, where REAGENT_REQUIRE_DOCKER=1 says there must be an engine."""

from __future__ import annotations

import os
import signal

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background job ignores it, and what the tests start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest.register_assert_rewrite(
    "reagent_env.testing.env_contract",
    "reagent_env.testing.reward_model_contract",
    "reagent_env.testing.simulator_contract",
    "reagent_env.sandboxes.conformance",
)


@pytest.fixture(scope="session")
def docker() -> None:
    """A Docker engine that answers."""
    from reagent_env.sandboxes.engine import docker_problem

    problem = docker_problem()
    if problem is not None:
        pytest.skip(f"no Docker: {problem}")


@pytest.fixture(params=["docker", "embedded"], scope="module")
def sandbox_kind(request: pytest.FixtureRequest) -> str:
    """Each backend that isolates: Docker and bubblewrap."""
    if request.param == "docker":
        request.getfixturevalue("docker")
    return str(request.param)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where Docker is required, a test skipped for want of it is an error."""
    if os.environ.get("REAGENT_REQUIRE_DOCKER") != "1":
        return
    from reagent_env.sandboxes.engine import docker_problem

    problem = docker_problem()
    if problem is not None:
        raise pytest.UsageError(f"REAGENT_REQUIRE_DOCKER=1, but {problem}")
