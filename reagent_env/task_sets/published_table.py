"""The published data sets that can be played: where each stands, its shape, its grader, its licence.

One row a data set, and nothing but the row is particular to it: the loader (``published.py``), the
environment (``benchmark_env.py``) and the suite read this table. Facts are those of the data sets'
own pages; no row of any data set is in this package. Light: registration imports it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MATH_TOOLS = ("python",)
SEARCH_TOOLS = ("search", "browse")
WEB_TOOLS = ("python", "search", "browse")
ALL_TOOLS = ("python", "search", "browse", "file_reader", "image2text", "audio2text")


@dataclass(frozen=True)
class PublishedSet:
    """One data set, e.g. ``PublishedSet("gsm8k", "GSM8K", "openai/gsm8k", config="main", …)``."""

    name: str
    """What ``load_task_set`` takes, and the folder looked for under a folder of data sets."""
    title: str
    """As its paper writes it."""
    hub: str
    """Its id on the Hugging Face hub."""
    shape: str
    """Which reader of :mod:`reagent_env.task_sets.published_shapes` reads a record."""
    splits: Mapping[str, str]
    """Our split → the published one; ``test`` is the one that results are reported on."""
    count: int
    """Questions of the published evaluation split."""
    licence: str
    """As its page states it."""
    summary: str
    """One line for people."""
    config: str | None = None
    """The hub's configuration."""
    grader: str = "exact"
    """As published; ``correctness`` is a judge's verdict."""
    grader_options: Mapping[str, object] = field(default_factory=dict)
    tools: tuple[str, ...] = SEARCH_TOOLS
    """Tools as in Reagent's evaluation; of the fullest subset."""
    gated: bool = False
    """Whether the hub asks for an agreement first."""
    subsets: tuple[str, ...] = ()
    """What ``subset=`` may be; the first is the default."""
    judge: str = "paper"
    """``own``: its published protocol is a judge. ``paper``: Reagent's evaluation used one, its own
    protocol is a comparison. ``never``: mathematics."""
    environment: str | None = None
    """Its id is ``reagent/<environment>-v0``; None for a task set alone."""
    files: str = "*"
    """Which files hold records, where attachments stand beside them."""
    contexts: bool = False
    """Whether records carry paragraphs to search in."""

    @property
    def page(self) -> str:
        """Where a person reads about it and accepts its terms."""
        return f"https://huggingface.co/datasets/{self.hub}"


_ROWS = (
    PublishedSet(
        "gsm8k",
        "GSM8K",
        "openai/gsm8k",
        "gsm8k",
        {"train": "train", "test": "test"},
        1319,
        "MIT",
        "Grade-school word problems.",
        config="main",
        grader="number",
        grader_options={"any_unit": True},
        tools=MATH_TOOLS,
        judge="never",
        environment="GSM8K",
    ),
    PublishedSet(
        "math500",
        "MATH-500",
        "HuggingFaceH4/MATH-500",
        "math",
        {"test": "test"},
        500,
        "MIT (of MATH, which it is drawn from)",
        "Competition mathematics, five levels.",
        grader="math",
        tools=MATH_TOOLS,
        judge="never",
        environment="MATH500",
    ),
    PublishedSet(
        "aime24",
        "AIME 2024",
        "HuggingFaceH4/aime_2024",
        "math",
        {"test": "train"},
        30,
        "as its page says; the problems are the MAA's",
        "The 30 problems of AIME I and II, 2024.",
        grader="math",
        tools=MATH_TOOLS,
        judge="never",
        environment="AIME24",
    ),
    PublishedSet(
        "aime25",
        "AIME 2025",
        "math-ai/aime25",
        "math",
        {"test": "test"},
        30,
        "as its page says; the problems are the MAA's",
        "The 30 problems of AIME I and II, 2025.",
        grader="math",
        tools=MATH_TOOLS,
        judge="never",
        environment="AIME25",
    ),
    PublishedSet(
        "hotpotqa",
        "HotpotQA",
        "hotpotqa/hotpot_qa",
        "qa",
        {"train": "train", "test": "validation"},
        7405,
        "CC BY-SA 4.0",
        "Two-hop questions over Wikipedia paragraphs.",
        config="distractor",
        environment="HotpotQA",
        contexts=True,
    ),
    PublishedSet(
        "2wiki",
        "2WikiMultihopQA",
        "framolfese/2WikiMultihopQA",
        "qa",
        {"train": "train", "test": "validation"},
        12576,
        "Apache-2.0 (of the original release)",
        "Two- to four-hop questions over Wikipedia.",
        environment="2Wiki",
        contexts=True,
    ),
    PublishedSet(
        "musique",
        "MuSiQue",
        "dgslibisey/MuSiQue",
        "qa",
        {"train": "train", "test": "validation"},
        2417,
        "CC BY 4.0",
        "Two- to four-hop questions that no short cut answers.",
        environment="MuSiQue",
        contexts=True,
    ),
    PublishedSet(
        "bamboogle",
        "Bamboogle",
        "chiayewken/bamboogle",
        "qa",
        {"test": "test"},
        125,
        "MIT",
        "Two-hop questions that a search engine does not answer at once.",
        environment="Bamboogle",
    ),
    PublishedSet(
        "gaia",
        "GAIA",
        "gaia-benchmark/GAIA",
        "gaia",
        {"test": "validation"},
        165,
        "no licence stated; do not share it again in a form that crawlers read",
        "Questions for assistants with files, the web and code; levels 1 to 3.",
        config="2023_all",
        files="metadata*",
        grader="gaia",
        tools=ALL_TOOLS,
        gated=True,
        subsets=("text", "full"),
        environment="GAIA",
    ),
    PublishedSet(
        "webwalkerqa",
        "WebWalkerQA",
        "callanwu/WebWalkerQA",
        "webwalker",
        {"train": "silver", "test": "main"},
        680,
        "Apache-2.0",
        "Questions answered by walking a site, in English and Chinese.",
        grader="correctness",
        judge="own",
        environment="WebWalkerQA",
    ),
    PublishedSet(
        "hle",
        "Humanity's Last Exam",
        "cais/hle",
        "hle",
        {"test": "test"},
        2500,
        "MIT; do not train on it, nor share it with the canary removed",
        "Expert questions of all fields.",
        grader="correctness",
        tools=(*SEARCH_TOOLS, "image2text"),
        gated=True,
        subsets=("text", "full"),
        judge="own",
        environment="HLE",
    ),
    PublishedSet(
        "xbench",
        "xbench-DeepSearch",
        "xbench/DeepSearch",
        "xbench",
        {"test": "train"},
        100,
        "MIT; keep it encrypted where it can be crawled",
        "Deep-search questions in Chinese, published encrypted.",
        grader="correctness",
        judge="own",
        environment="XBench",
    ),
    PublishedSet(
        "nq",
        "Natural Questions (open)",
        "google-research-datasets/nq_open",
        "qa",
        {"train": "train", "test": "validation"},
        3610,
        "CC BY-SA 3.0",
        "Questions people asked a search engine.",
    ),
    PublishedSet(
        "triviaqa",
        "TriviaQA",
        "mandarjoshi/trivia_qa",
        "qa",
        {"train": "train", "test": "validation"},
        17944,
        "not stated on its page",
        "Trivia questions with aliases of their answers.",
        config="rc.nocontext",
    ),
    PublishedSet(
        "popqa",
        "PopQA",
        "akariasai/PopQA",
        "qa",
        {"test": "test"},
        14267,
        "not stated on its page",
        "Questions about entities from popular to obscure.",
    ),
    PublishedSet(
        "reagent_rl",
        "Reagent-RL-709K",
        "bunny127/Reagent-RL-709K",
        "reagent_rl",
        {"train": "train"},
        709_000,
        "as its page says",
        "Reagent's mixture for reinforcement learning.",
        grader="qa",
        tools=WEB_TOOLS,
    ),
)

PUBLISHED: Mapping[str, PublishedSet] = {row.name: row for row in _ROWS}
"""Name → its row."""

BENCHMARKS: Mapping[str, PublishedSet] = {
    f"reagent/{row.environment}-v0": row for row in _ROWS if row.environment
}
"""Environment id → its row: the twelve benchmarks of Reagent's paper."""

SEARCH_PRESETS = ("nq", "triviaqa", "popqa", "hotpotqa", "2wiki", "musique", "bamboogle")
"""Question sets for ``gym.make("reagent/SearchQA-v0", tasks=…)``, as in AgentGym-RL's deep search."""
