"""SearchQA as verifiers' plug-in; vf-eval plays it against any OpenAI-compatible server.

    scripts/make-plugin-venv verifiers          # or: pip install 'reagent-env[verifiers]'
    reagent serve smollm2                       # or any server; its address goes below
    PYTHONPATH=examples .venv-plugin-verifiers/bin/vf-eval verifiers_search \
        --env.taskset.env-id reagent/SearchQA-v0 --env.judge rubric \
        --model smollm2 --client.base-url http://127.0.0.1:8000/v1 --client.api-key-var NO_KEY \
        --select.limit 5 --no-push --no-rich

A judge of one's own: --env.judge http://127.0.0.1:8001/v1#agent-rrm. A second attempt after its
critique: --env.attempts 2.
"""

from reagent_env.plugins.verifiers import ToolUseChat, ToolUseTaskset, ToolUseVerifier

__all__ = ["ToolUseChat", "ToolUseTaskset", "ToolUseVerifier"]
