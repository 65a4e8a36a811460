"""How often each attack is repeated, and an arena for each backend."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

# Modules beside the tests, which are no package.
sys.path.append(os.path.dirname(__file__))

from arena import Arena

from reagent_env.sandboxes.embedded import embedded_problem


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--attack-times", type=int, default=1, help="repeat every attack so often")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "attempt" in metafunc.fixturenames:
        times = metafunc.config.getoption("--attack-times")
        metafunc.parametrize("attempt", range(times), ids=lambda n: f"time{n + 1}")


@pytest.fixture(scope="session")
def docker_arena(docker: None) -> Iterator[Arena]:
    arena = Arena("docker")
    yield arena
    arena.close()


@pytest.fixture(scope="session")
def embedded_arena() -> Iterator[Arena]:
    if (problem := embedded_problem()) is not None:
        pytest.skip(problem)
    arena = Arena("embedded")
    yield arena
    arena.close()


@pytest.fixture(params=["docker", "embedded"])
def arena(request: pytest.FixtureRequest) -> Arena:
    """Each backend's arena."""
    found = request.getfixturevalue(f"{request.param}_arena")
    assert isinstance(found, Arena)
    return found
