"""verl's real worker, advantage dispatch and policy loss around our agent loop; only the server is a fake."""

from __future__ import annotations

import asyncio
import importlib.resources
import math
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from omegaconf import OmegaConf
from transformers import AutoTokenizer

sys.path.insert(0, str(Path(__file__).parent))

from verl_fakes import (  # first: it silences what verl's imports warn of
    LIBRARIES_WARN,
    RESPONSE,
    WrittenServer,
    as_batch,
    configuration,
    make_worker,
    play_group,
    row,
)

# isort: split
import verl
from verl.trainer.ppo.core_algos import compute_policy_loss_vanilla, get_adv_estimator_fn
from verl.trainer.ppo.ray_trainer import compute_advantage
from verl.utils.config import omega_conf_to_dataclass, validate_config
from verl.utils.import_utils import load_class_from_fqn

from reagent_env.judgement import Judgement
from reagent_env.plugins.conformance_env import LEDGER
from reagent_env.plugins.verl import ReagentAgentLoop, ReagentAgentLoopManager
from reagent_env.plugins.verl_dataset import compute_score, rows, write
from reagent_env.plugins.verl_rewards import ESTIMATORS, read_rewards, spans_of, token_rewards
from reagent_env.trainers.policies.tiny import SHIPPED
from reagent_env.trainers.sample import AttemptReturn
from reagent_env.trajectory import Trajectory

pytestmark = LIBRARIES_WARN
CALL = '<tool_call>{"name": "balance", "arguments": {"owner": "Ada"}}</tool_call>'
BREAK = '<tool_call>{"name": "audit", "arguments": {"year": 1066}}</tool_call>'
RIGHT, WRONG = "\\boxed{165}", "\\boxed{1}"  # Ada and Bo hold 165 together
ROOT = Path(__file__).parents[2]


class ByLength:
    """φ = 0.5 after a call, 0.8 at an end that had a call before it, 0.2 without; ``\\boxed{}`` unscored."""

    def judge(self, trajectories: Sequence[Trajectory]) -> list[Judgement]:
        return [self._one(trajectory.attempts[-1].turns) for trajectory in trajectories]

    def _one(self, turns: Sequence[Any]) -> Judgement:
        if turns[-1].completion == "\\boxed{}":
            return Judgement(critique="Look again.", unscored="no verdict")
        scores = (*(0.5 for _ in turns[:-1]), 0.8 if len(turns) > 1 else 0.2)
        return Judgement(critique="Look again.", score=scores[-1], turn_scores=scores)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(SHIPPED)


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: Any) -> Any:
    """Plays a group whose sessions write what they are told; gives what verl's worker put, and the server."""

    def group(written: Sequence[Sequence[str]], judge: Any = None, **loop: Any) -> Any:
        made = ReagentAgentLoop.__init__

        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            made(self, *args, **{**kwargs, "judge": judge})  # an object, which YAML cannot hold

        monkeypatch.setattr(ReagentAgentLoop, "__init__", init)
        config = configuration(tmp_path, {"source": LEDGER, "credit": "turn", **loop})
        config.actor_rollout_ref.rollout.n = len(written)
        server = WrittenServer(tokenizer, lambda n: written[n])
        recorded = play_group(make_worker(config, server), monkeypatch, task=0)
        assert recorded.status == ["running", "finished"]
        monkeypatch.setattr(ReagentAgentLoop, "__init__", made)
        return recorded, server

    return group


def by_turn(batch: Any, place: int) -> list[float]:
    """The advantage of each turn; all its tokens share it."""
    values = batch.batch["advantages"][place].tolist()
    mask = batch.batch["response_mask"][place].tolist()
    found = []
    for span in spans_of(mask):
        said = {round(value, 5) for value in values[span.begin : span.end]}
        assert len(said) == 1
        found.append(said.pop())
    outside = [value for value, trained in zip(values, mask, strict=True) if not trained]
    assert set(outside) <= {0.0}
    return found


def advantages(recorded: Any, name: str) -> Any:
    config = OmegaConf.create({"use_kl_in_reward": False})
    return compute_advantage(as_batch(recorded), name, config=config)


def test_tokens_and_log_probabilities_are_the_servers_and_observations_are_masked(
    play: Any, tokenizer: Any
) -> None:
    recorded, server = play([[CALL, RIGHT]])
    fields = recorded.fields["u_0_0"]
    ids, mask = fields["responses"].tolist(), fields["response_mask"].tolist()
    spans = spans_of(mask)
    texts = [tokenizer.decode(ids[span.begin : span.end - 1]) for span in spans]
    assert texts == [CALL, RIGHT]
    assert ids[spans[0].end - 1] == tokenizer.eos_token_id  # sampled, hence trained
    between = tokenizer.decode(ids[spans[0].end : spans[1].begin])
    assert "Ada has 120" in between
    logprobs = fields["rollout_log_probs"].tolist()
    assert logprobs[:3] == pytest.approx([-0.01, -0.02, -0.03])
    assert {logprobs[place] for place, kept in enumerate(mask) if not kept} == {0.0}
    first, second = server.requests
    assert second["prompt"] == first["prompt"] + ids[: spans[1].begin]  # nothing encoded again
    assert first["id"] == second["id"]
    assert tokenizer.eos_token_id in first["params"]["stop_token_ids"]
    assert second["params"]["max_tokens"] == min(1024, RESPONSE - spans[1].begin)


def test_weights_versions_reach_verls_staleness_control(play: Any) -> None:
    recorded, _ = play([[CALL, RIGHT]])
    extra = recorded.fields["u_0_0"]["extra_fields"]
    assert (extra["min_global_steps"], extra["max_global_steps"]) == (3, 5)


def test_each_turn_is_paid_at_its_tokens(play: Any) -> None:
    recorded, _ = play([[CALL, RIGHT]], judge=ByLength())
    fields = recorded.fields["u_0_0"]
    rewards = fields["rm_scores"].tolist()
    first, last = spans_of(fields["response_mask"].tolist())
    assert rewards[first.end - 1] == pytest.approx(0.3 * 0.5)
    assert rewards[last.end - 2] == pytest.approx(0.3 * 0.3)
    assert rewards[last.end - 1] == 1.0
    assert math.fsum(rewards) == pytest.approx(1 + 0.3 * 0.8)


def test_credit_by_trajectory_pays_all_at_the_end(play: Any) -> None:
    recorded, _ = play([[CALL, RIGHT]], judge=ByLength(), credit="trajectory")
    rewards = recorded.fields["u_0_0"]["rm_scores"].tolist()
    assert [round(one, 5) for one in rewards if one] == [0.24, 1.0]


def test_each_turn_has_its_own_advantage_in_verls_loss(play: Any) -> None:
    recorded, _ = play([[CALL, RIGHT], [CALL, WRONG], [WRONG]], judge=ByLength())
    batch = advantages(recorded, "reagent_turn")
    high, low = 2**0.5, -(0.5**0.5)  # outcomes 1, 0, 0
    first = [high + 0.3 * (0.8 - 0.5), high + 0.3 * 0.3]
    assert by_turn(batch, 0) == pytest.approx(first, abs=1e-4)
    assert by_turn(batch, 1) == pytest.approx([a - high + low for a in first], abs=1e-4)
    assert by_turn(batch, 2) == pytest.approx([low + 0.3 * (0.2 - 0.8)], abs=1e-4)


def test_verls_policy_loss_learns_from_them_alone(play: Any) -> None:
    recorded, _ = play([[CALL, RIGHT], [WRONG]], judge=ByLength())
    batch = advantages(recorded, "reagent_turn").batch
    old = batch["rollout_log_probs"]
    new = old.clone().requires_grad_()
    config = OmegaConf.create(
        {"clip_ratio": 0.2, "clip_ratio_low": 0.2, "clip_ratio_high": 0.2, "clip_ratio_c": 3.0}
    )
    config.global_batch_info = {}
    loss, _ = compute_policy_loss_vanilla(
        old, new, batch["advantages"], batch["response_mask"], "token-mean", config
    )
    loss.backward()
    mask = batch["response_mask"]
    wanted = -(batch["advantages"] * mask) / mask.sum()  # every ratio is 1
    assert torch.allclose(new.grad, wanted, atol=1e-6)


def test_attempts_are_credited_apart_in_one_response(play: Any) -> None:
    recorded, _ = play([[WRONG, CALL, RIGHT], [RIGHT, CALL, WRONG]], judge=ByLength(), attempts=2)
    batch = advantages(recorded, "reagent_per_stage")
    assert by_turn(batch, 0) == pytest.approx([-1, 1, 1], abs=1e-4)
    assert by_turn(batch, 1) == pytest.approx([1, -1, -1], abs=1e-4)


def test_an_unscored_rollout_keeps_its_outcome_and_has_no_process_advantage(play: Any) -> None:
    recorded, _ = play([["\\boxed{}"], [CALL, WRONG], [WRONG]], judge=ByLength())
    batch = advantages(recorded, "reagent_grpo")
    unscored, better, worse = (by_turn(batch, place)[0] for place in range(3))
    assert unscored == 0
    assert better == -worse
    assert better > 0.5


def test_a_spoiled_rollout_is_in_no_mean_and_has_no_token_in_the_loss(play: Any) -> None:
    recorded, _ = play([[RIGHT], [CALL, BREAK], [WRONG], ["(the server dies)"]])
    batch = advantages(recorded, "reagent_grpo")
    assert by_turn(batch, 0) == pytest.approx([1.0])
    assert by_turn(batch, 2) == pytest.approx([-1.0])
    for spoiled in (1, 3):
        assert by_turn(batch, spoiled) == []
    info = recorded.fields["u_1_0"]["extra_fields"]["reward_extra_info"]
    assert info["masked"] == 1.0


def test_verls_own_grpo_sees_the_sum_of_what_is_paid(play: Any) -> None:
    recorded, _ = play([[CALL, RIGHT], [WRONG]], judge=ByLength())
    batch = compute_advantage(as_batch(recorded), "grpo", norm_adv_by_std_in_grpo=False)
    assert by_turn(batch, 0) == pytest.approx([0.59, 0.59])  # 1.24 and 0.06 about 0.65
    assert by_turn(batch, 1) == pytest.approx([-0.59])


def test_verls_gae_sees_each_turns_reward_where_it_was_paid(play: Any) -> None:
    recorded, _ = play([[CALL, RIGHT], [CALL, WRONG]], judge=ByLength())
    data = as_batch(recorded)
    data.batch["values"] = torch.zeros_like(data.batch["token_level_rewards"])
    config = OmegaConf.create({"use_pf_ppo": False})
    returns = compute_advantage(data, "gae", gamma=1.0, lam=1.0, config=config).batch["returns"]
    first, last = spans_of(data.batch["response_mask"][0].tolist())
    assert float(returns[0, first.begin]) == pytest.approx(1.24)
    assert float(returns[0, last.begin]) == pytest.approx(1.24 - 0.15)


def test_a_response_never_outgrows_its_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: Any
) -> None:
    config = configuration(tmp_path, {"source": LEDGER})
    config.actor_rollout_ref.rollout.response_length = 40
    config.actor_rollout_ref.rollout.n = 1
    server = WrittenServer(tokenizer, lambda n: [CALL] * 5)
    recorded = play_group(make_worker(config, server), monkeypatch, task=0)
    fields = recorded.fields["u_0_0"]
    assert len(fields["responses"]) <= 40
    assert fields["extra_fields"]["stop_reasons"] == ["context_length"]
    assert math.fsum(fields["rm_scores"].tolist()) == 0.0
    assert int(fields["response_mask"].sum()) > 0  # trained, as an outcome of 0


def test_without_log_probabilities_from_the_server_none_are_made_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: Any
) -> None:
    config = configuration(tmp_path, {"source": LEDGER})
    config.actor_rollout_ref.rollout.n = 1
    server = WrittenServer(tokenizer, lambda n: [RIGHT])
    server.logprobs = False
    recorded = play_group(make_worker(config, server), monkeypatch, task=0)
    assert "rollout_log_probs" not in recorded.fields["u_0_0"]


def test_verls_older_worker_pads_the_same_output_and_takes_one_number(
    tmp_path: Path, tokenizer: Any
) -> None:
    from verl.experimental.agent_loop.agent_loop import AgentLoopWorker

    config = configuration(tmp_path, {"source": LEDGER})
    server = WrittenServer(tokenizer, lambda n: [CALL, RIGHT])
    worker = AgentLoopWorker(config, server)
    trajectory = {"step": 1, "sample_index": 0, "rollout_n": 0, "validate": False}

    async def run() -> Any:
        given = {key: value for key, value in row(0).items() if key != "global_steps"}
        return await worker._run_agent_loop({"temperature": 1.0}, trajectory, **given)

    batch = worker._postprocess([asyncio.run(run())])
    assert batch.batch["responses"].shape == (1, RESPONSE)
    assert float(batch.batch["rm_scores"].sum()) == 1.0
    assert int(batch.batch["response_mask"].sum()) == int(
        (batch.batch["rollout_log_probs"] < 0).sum()
    )


def test_verl_finds_the_estimators_by_name() -> None:
    for name in ESTIMATORS:
        assert callable(get_adv_estimator_fn(f"reagent_{name}"))
    with pytest.raises(ValueError, match="use_kl_loss instead"):
        get_adv_estimator_fn("reagent_turn")(
            torch.zeros(1, 2), torch.ones(1, 2), config={"use_kl_in_reward": True}
        )
    assert ReagentAgentLoopManager.__module__ == "reagent_env.plugins.verl"


def test_what_is_written_into_the_rewards_is_read_back() -> None:
    turn_of = [0, 0, 0, -1, -1, 1, 1, -1, 2, 2, 2]
    attempts = (AttemptReturn(0.0, (0.5, None)), AttemptReturn(1.0, (0.8,)))
    rewards = token_rewards(turn_of, attempts, 0.5)
    mask = [int(turn >= 0) for turn in turn_of]
    assert rewards == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0.4, 1.0]  # the first attempt is unscored
    assert read_rewards(rewards, mask) == [
        AttemptReturn(0.0, (0.0, None)),
        AttemptReturn(1.0, (0.4,)),
    ]
    assert read_rewards([0.0] * 3, [0, 0, 0]) == []


def test_negative_zeros_survive_what_verl_does_with_the_tensor() -> None:
    rewards = torch.tensor([0.0, -0.0, 1.0])
    nested = torch.nested.as_nested_tensor([rewards, rewards[:2]], layout=torch.jagged)
    padded = nested.to_padded_tensor(0.0)
    assert torch.signbit(padded).tolist() == [[False, True, False], [False, True, False]]


def test_a_row_that_names_no_task_is_refused(tmp_path: Path, tokenizer: Any) -> None:
    from verl.experimental.agent_loop.agent_loop import AgentLoopWorker

    worker = AgentLoopWorker(
        configuration(tmp_path, {"source": LEDGER}), WrittenServer(tokenizer, lambda n: [])
    )
    trajectory = {"step": 1, "sample_index": 0, "rollout_n": 0, "validate": False}

    async def run() -> None:
        given = {key: value for key, value in row(0).items() if key != "global_steps"}
        given["extra_info"] = {}
        await worker._run_agent_loop({}, trajectory, **given)

    with pytest.raises(ValueError, match=r"extra_info needs `task`"):
        asyncio.run(run())


def test_the_data_set_has_verls_columns(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    write(tmp_path / "train.parquet", LEDGER, 3, seed=1)
    frame = pandas.read_parquet(tmp_path / "train.parquet")
    assert set(frame.columns) >= {
        "prompt",
        "agent_name",
        "data_source",
        "reward_model",
        "extra_info",
    }
    assert set(frame["agent_name"]) == {"reagent"}
    assert frame["extra_info"][0]["env_id"] == LEDGER
    assert len({one["task"] for one in frame["extra_info"]}) == 3


def test_the_reward_function_grades_as_the_environment_does() -> None:
    one = rows(LEDGER, 1)[0]
    right = f"\\boxed{{{one['reward_model']['ground_truth']}}}"
    for text, outcome in ((right, 1.0), ("\\boxed{-1}", 0.0), ("no idea", 0.0)):
        told = compute_score(
            one["data_source"], text, one["reward_model"]["ground_truth"], one["extra_info"]
        )
        assert told == {"score": outcome, "acc": outcome}


def test_verl_takes_the_yaml_to_copy(tmp_path: Path) -> None:
    loops = OmegaConf.load(ROOT / "examples/verl_agent_loop.yaml")
    assert hydra.utils.get_class(loops[0]._target_) is ReagentAgentLoop
    shutil.copytree(importlib.resources.files(verl) / "trainer/config", tmp_path / "config")
    shutil.copy(ROOT / "examples/verl_ppo.yaml", tmp_path / "config")
    with hydra.initialize_config_dir(str(tmp_path / "config"), version_base=None):
        config = hydra.compose("verl_ppo")
    assert config.algorithm.adv_estimator == "reagent_turn"
    assert config.actor_rollout_ref.rollout.prompt_length == 2048  # data.max_prompt_length
    assert omega_conf_to_dataclass(config.actor_rollout_ref.rollout).n == 8
    validate_config(config, use_reference_policy=False, use_critic=False)  # as main_ppo does first
    manager = config.actor_rollout_ref.rollout.agent.agent_loop_manager_class
    assert load_class_from_fqn(manager, "AgentLoopManager") is ReagentAgentLoopManager
