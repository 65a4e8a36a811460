"""The contract over the ids that have no test file of their own to keep it in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from reagent_env.registration import ENVIRONMENTS
from reagent_env.task_sets.published_table import BENCHMARKS
from reagent_env.testing import ChatReply, EnvContract, ScriptedChatServer
from reagent_env.testing.published_miniatures import write_miniatures
from reagent_env.testing.simulator_contract import printed_under_hash_seeds

ELSEWHERE = {
    "reagent/BabyAI-v0",
    "reagent/GAIA-v0",
    "reagent/HotpotQA-v0",
    "reagent/MiniMix-v0",
    "reagent/PythonMath-v0",
    "reagent/SQL-v0",
    "reagent/SciWorld-v0",
    "reagent/TextCraft-v0",
    "reagent/WebNav-v0",
}
"""Theirs stand beside their own tests."""
HERE = sorted(set(ENVIRONMENTS) - ELSEWHERE)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What benchmarks want from outside: copies, documents, a judge of correctness."""
    documents = tmp_path_factory.mktemp("corpus") / "wiki.jsonl"
    documents.write_text('{"title": "Keth", "text": "A river."}\n')
    copies = write_miniatures(tmp_path_factory.mktemp("copies"))
    with ScriptedChatServer(lambda request: ChatReply("<verdict>incorrect</verdict>")) as server:
        yield {"data": copies, "corpus": documents, "judge": f"{server.base_url}#judge"}


@pytest.mark.parametrize("env_id", HERE, scope="class")
class TestContract(EnvContract):
    @pytest.fixture(autouse=True)
    def _given(self, env_id: str, given: dict[str, Any]) -> None:
        self.env_id = env_id
        self.options: dict[str, Any] = {"sandbox": "process"}
        row = BENCHMARKS.get(env_id)
        if row is None:
            return
        self.options["data"] = given["data"]
        self.options |= {"subset": "full"} if row.subsets else {}
        self.options |= {"judge": given["judge"]} if row.judge == "own" else {}
        self.options |= {"corpus": given["corpus"]} if "search" in row.tools else {}

    def make_env(self, **kwargs: Any) -> Any:
        options = {**self.options, **kwargs}
        return gymnasium.make(self.env_id, disable_env_checker=True, **options)


def test_every_id_has_a_contract_somewhere() -> None:
    """An id that is added is run here, or says in which file it is."""
    assert set(ENVIRONMENTS) >= ELSEWHERE
    tests = Path(__file__).parents[1]
    classes = [
        file.read_text("utf-8")
        for file in tests.rglob("test_*.py")
        if file != Path(__file__) and "Contract)" in file.read_text("utf-8")
    ]
    for env_id in ELSEWHERE:
        assert any(f'"{env_id}"' in text for text in classes), env_id


DRAWN = """
import hashlib, sys, gymnasium, reagent_env
from reagent_env.tool_formats import get_tool_format
for env_id in sys.argv[1:]:
    env = gymnasium.make(env_id, sandbox="process", disable_env_checker=True)
    seen = hashlib.sha256()
    for seed in range(4):
        seen.update(env.reset(seed=seed)[0].encode())
        seen.update(repr(env.step('<tool_call>{"name": "nothing"}</tool_call>')[:4]).encode())
    env.close()
    print(env_id, seen.hexdigest())
"""


def test_every_process_and_hash_seed_draws_the_same_tasks() -> None:
    """Worlds have this in their own contract."""
    ids = [
        f"reagent/{name}-v0"
        for name in ["FileQA", "MiniMix", "PythonMath", "SQL", "SearchQA", "ToolMix"]
    ]
    printed = printed_under_hash_seeds(DRAWN, *ids)
    assert printed[0] == printed[1]
    assert [line.split()[0] for line in printed[0].splitlines()] == ids
