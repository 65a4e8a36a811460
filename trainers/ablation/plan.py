"""Which runs an ablation has: every arm from every cold start with every seed, the rest alike.

The plan stands in ``plan.json`` beside the runs; a folder whose runs were made by another plan is
refused, so that no table mixes budgets, tasks, judges or first weights.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from reagent_env.reward_models import TINY, TINY_FOLDER, TINY_SINGLE, reward_model_names
from reagent_env.trainers.ablation.arms import Arm, arm_config
from reagent_env.trainers.atomic_files import write_json
from reagent_env.trainers.config import TrainConfig
from reagent_env.trainers.policies import checkpoint_folder

POLICY_TOKENS = 48_000
"""The budget of a run: two to four minutes on a core of its own."""

COMMON: Mapping[str, Any] = MappingProxyType(
    {
        "updates": 100_000,  # the budget ends a run
        "groups_per_update": 8,
        "group_size": 8,
        "max_tokens": 96,
        "lr": 1e-3,  # of 6e-4, 1e-3 and 2e-3, on the validation split
        "concurrency": 64,
        # An update's own groups, as they come. In lock-step a judge would be asked about one attempt
        # at a time, and critiques could not be exchanged between tasks.
        "spare_groups": 0,
        "max_staleness": 0,
        "threads": 1,
        "eval_every": 0,
        "held_out_before": False,  # once a cold start
        "held_out_episodes": 1000,
        "held_out_split": "test",
        "checkpoint_every": 10,
        "keep_checkpoints": 1,
        "save_trajectories": False,  # of training; those of the held-out tasks are kept
    }
)
"""Settings that all arms share, unless the command says otherwise."""

ON_VALIDATION: Mapping[str, Any] = MappingProxyType(
    {"held_out_split": "validation", "held_out_episodes": 500}
)
"""Of sweeps: what is chosen by them must not have seen the test split."""

PLAN_FILE = "plan.json"
MEASURE = "cold-start"
"""The run that trains nothing: a cold start's success before."""


@dataclass(frozen=True, slots=True)
class ColdStart:
    """First weights, e.g. ``ColdStart("tiny", "tiny", "9f2c…")``."""

    label: str
    """Name of its folder."""
    policy: str
    """As ``--policy`` takes it."""
    weights: str
    """Fingerprint of the files; empty where they are not on this machine yet."""


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One run, e.g. ``PlannedRun("reagent-u", "tiny", 3, path, config)``."""

    arm: str
    start: str
    seed: int
    path: Path
    config: TrainConfig

    @property
    def before(self) -> Path:
        """Folder of its cold start's measurement."""
        return self.path.parents[2] / MEASURE / self.start

    def __str__(self) -> str:
        if self.arm == MEASURE:
            return f"{self.start} before training"
        return f"{self.arm} from {self.start}, seed {self.seed}"


@dataclass(frozen=True, slots=True)
class Plan:
    """An ablation, e.g. ``Plan(root, "default", arms, starts, 10, {"env": …})``."""

    root: Path
    """Where everything of it is."""
    task: str
    """What it is called."""
    arms: tuple[Arm, ...]
    starts: tuple[ColdStart, ...]
    seeds: int
    """0 … seeds − 1."""
    common: Mapping[str, Any]
    """Settings that all arms share, the budget and the environment among them."""
    asked: tuple[int, ...] = ()
    """Seeds as they were asked for, one after the other, where that was more than once."""
    commands: tuple[str, ...] = ()
    """What its runs were made with."""

    @property
    def budget(self) -> int:
        """Policy tokens of a run."""
        return int(self.common["max_policy_tokens"])

    def runs(self) -> Iterator[PlannedRun]:
        """All runs, seed by seed, so that what is done at any time compares the arms fairly."""
        for seed in range(self.seeds):
            for start in self.starts:
                for arm in self.arms:
                    yield self._run(arm, start, seed)

    def measurements(self) -> Iterator[PlannedRun]:
        """Each cold start's success before training, on the same held-out tasks."""
        for start in self.starts:
            config = dataclasses.replace(
                arm_config(self.arms[0], {**self.common, "policy": start.policy}),
                held_out_before=True,
            )
            yield PlannedRun(MEASURE, start.label, 0, self.root / MEASURE / start.label, config)

    def _run(self, arm: Arm, start: ColdStart, seed: int) -> PlannedRun:
        config = arm_config(arm, {**self.common, "policy": start.policy, "seed": seed})
        path = self.root / _folder(arm.name) / start.label / f"seed-{seed:03d}"
        return PlannedRun(arm.name, start.label, seed, path, config)

    @property
    def judges(self) -> list[str]:
        """The judges' names, of all arms and of those with one of their own."""
        named = [self.common.get("judge"), *(arm.settings.get("judge") for arm in self.arms)]
        return sorted({name for name in named if name})

    def to_json(self) -> dict[str, Any]:
        """What two plans must agree on to share a folder."""
        return {
            "task": self.task,
            "common": json.loads(json.dumps(dict(self.common))),
            "cold_starts": {one.label: dataclasses.asdict(one) for one in self.starts},
            "judges": {name: judge_fingerprint(name) for name in self.judges},
            "arms": {
                arm.name: {
                    "recipe": arm.recipe,
                    "meaning": arm.meaning,
                    "settings": json.loads(json.dumps(dict(arm.settings))),
                }
                for arm in self.arms
            },
        }


def keep_plan(plan: Plan, command: str = "") -> None:
    """Write ``plan.json``, or add this plan's arms, cold starts, seeds and command to it.

    Raises:
        ValueError: the folder's runs were made otherwise; says what differs.
    """
    path = plan.root / PLAN_FILE
    mine = {**plan.to_json(), "seeds": [plan.seeds], "commands": [command] * bool(command)}
    if path.exists():
        there = json.loads(path.read_text("utf-8"))
        asked = there.get("seeds", [])
        mine["seeds"] = asked + [one for one in mine["seeds"] if one > max(asked, default=0)]
        mine["commands"] = list(dict.fromkeys([*there.get("commands", []), *mine["commands"]]))
        for name in ("task", "common"):
            if there[name] != mine[name]:
                raise ValueError(
                    f"The runs in {plan.root} were made with another {name}: "
                    f"{_differing(there[name], mine[name])}. Another --out keeps them apart."
                )
        if "judges" not in there:
            raise ValueError(
                f"{path} does not say which judge's weights the runs there had. Another --out "
                "keeps them apart."
            )
        for kind in ("cold_starts", "arms", "judges"):
            known = there[kind]
            for label, one in mine[kind].items():
                if known.get(label, one) != one:
                    raise ValueError(
                        f"{label!r} among the {kind} of {plan.root} was another: "
                        f"{_differing(known[label], one)}. Another --out keeps them apart."
                    )
            mine[kind] = {**known, **mine[kind]}
    plan.root.mkdir(parents=True, exist_ok=True)
    write_json(path, mine)


def kept_plan(root: Path) -> Plan:
    """All that was ever planned in a folder: every arm, cold start and seed.

    Raises:
        FileNotFoundError: no plan there.
        ValueError: it was written by another version.
    """
    path = root / PLAN_FILE
    if not path.exists():
        raise FileNotFoundError(f"There is no {path}: nothing was run there yet.")
    record = json.loads(path.read_text("utf-8"))
    try:
        arms = [Arm(name, **said) for name, said in record["arms"].items()]
        starts = [ColdStart(**said) for said in record["cold_starts"].values()]
        asked = tuple(record["seeds"])
        return Plan(
            root,
            record["task"],
            tuple(arms),
            tuple(starts),
            max(asked),
            record["common"],
            asked,
            tuple(record["commands"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is of another version of this package: {error!r}.") from None


def cold_starts(policies: Sequence[str]) -> list[ColdStart]:
    """Cold starts by policy, with labels that differ and fingerprints of their weights.

    Raises:
        ValueError: one is named twice.
        UnknownPolicy: a folder without a model.
    """
    if len(set(policies)) < len(policies):
        raise ValueError(f"A cold start is named twice: {', '.join(policies)}.")
    found: list[ColdStart] = []
    for policy in policies:
        label = base = _folder(Path(policy).name if "/" in policy else policy)
        while label in {one.label for one in found}:
            label = f"{base}-{1 + sum(one.label.startswith(base) for one in found)}"
        found.append(ColdStart(label, policy, fingerprint(policy)))
    return found


def fingerprint(policy: str) -> str:
    """Sixteen hex digits of a policy's weights; empty where they are not on this machine."""
    folder = Path(policy)
    if policy == "tiny":
        folder = Path(__file__).parents[1] / "policies" / "tiny_policy"
    elif policy == "smollm2":
        return "smollm2"  # fetched by its own checksum (agents/smollm2.py)
    if not folder.is_dir():
        return ""
    return _digest(checkpoint_folder(folder).glob("*.safetensors"))


def judge_fingerprint(judge: str) -> str:
    """Sixteen hex digits of a local judge's weights and settings; empty for rules and for servers."""
    tiny = judge in (TINY, TINY_SINGLE)
    if not tiny and judge in reward_model_names():
        return ""
    folder = TINY_FOLDER if tiny else Path(judge).expanduser()
    return _digest(folder.rglob("*.safetensors"), folder.rglob("*.json")) if folder.is_dir() else ""


def _digest(*files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for of in files:
        for file in sorted(of):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _folder(name: str) -> str:
    return re.sub(r"[^\w.=+-]+", "_", name).strip("_") or "_"


def _differing(there: Any, mine: Any) -> str:
    """What differs between two values of a plan, in words."""
    if not (isinstance(there, Mapping) and isinstance(mine, Mapping)):
        return f"{there!r} there, {mine!r} now"
    names = [name for name in {**there, **mine} if there.get(name) != mine.get(name)]
    return "; ".join(f"{name} {there.get(name)!r} there, {mine.get(name)!r} now" for name in names)
