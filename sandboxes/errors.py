"""What can go wrong with a sandbox itself, as opposed to with a command inside it.

A failed *command* is a result (:class:`~reagent_env.sandboxes.contract.Execution`); a failed
*sandbox* is an exception, and infrastructure: it is retried or masked, never the policy's fault.

::

    SandboxError
    ├── SandboxUnavailable   none can be had: no backend, full pool, daemon stalled
    ├── CapabilityMissing    the sandbox found cannot enforce what the task demands
    └── SandboxLost          it died, froze or broke the protocol while in use
"""

from __future__ import annotations


class SandboxError(Exception):
    """Base of every infrastructure failure of a sandbox."""


class SandboxUnavailable(SandboxError):
    """No sandbox can be had now; the message says what was tried and which command mends it."""


class CapabilityMissing(SandboxError):
    """The sandbox cannot enforce a demanded guard, so it refuses to run (fails closed)."""


class SandboxLost(SandboxError):
    """The sandbox died, froze past the host's watchdog, or broke the protocol in mid-use."""
