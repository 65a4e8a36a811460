"""An OpenAI-compatible server without a model: searches for a name of the question, then gives up.

python examples/scripted_server.py            # prints its address; serves until Ctrl-C

To try what asks a server (``vf-eval``, ``reagent eval``) where there is none with a model.
"""

import json
import re
import threading

from reagent_env.testing import ChatReply, ChatRequest, ScriptedChatServer


def reply(request: ChatRequest) -> ChatReply:
    """One search, then no answer."""
    if any(message["role"] == "assistant" for message in request.body["messages"]):
        return ChatReply(r"\boxed{I do not know}")
    names = re.findall(r"[A-Z]\w+(?: [A-Z]\w+)*", request.user)[1:] or ["anything"]
    call = {"name": "search", "arguments": {"queries": [max(names, key=len)]}}
    return ChatReply(f"<tool_call>\n{json.dumps(call)}\n</tool_call>")


if __name__ == "__main__":
    with ScriptedChatServer(reply) as server:
        print(server.base_url, flush=True)
        threading.Event().wait()
