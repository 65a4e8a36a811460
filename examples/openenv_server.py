"""Any environment behind OpenEnv's server, judged there; OpenEnv's own client plays an episode.

pip install 'reagent-env[openenv]'
python examples/openenv_server.py                          # one process: server and client
python examples/openenv_server.py serve --port 8000        # the server alone
"""

import argparse

from openenv import GenericEnvClient

from reagent_env.plugins.openenv import make_app, running, serve


def main() -> None:
    """Read the command line and act."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", nargs="?", choices=["play", "serve"], default="play")
    parser.add_argument("--env", default="reagent/PythonMath-v0")
    parser.add_argument("--judge", default="rubric")
    parser.add_argument("--sandbox", default="auto")
    parser.add_argument("--port", type=int, default=8000)
    given = parser.parse_args()
    settings = {"judge": given.judge, "attempts": 2, "sandbox": given.sandbox}
    if given.command == "serve":
        serve(given.env, port=given.port, **settings)
        return
    with (
        running(make_app(given.env, **settings)) as url,
        GenericEnvClient(base_url=url).sync() as env,
    ):
        print(env.reset(seed=7).observation["text"])
        for said in (r"I guess \boxed{1}", r"I still say \boxed{1}"):
            turn = env.step({"text": said})
            seen = turn.observation
            print(f">>> {said}\nreward {turn.reward}, score {seen['score']}, {seen['stop_reason']}")
            print(f"critique: {seen['critique']}")


if __name__ == "__main__":
    main()
