"""An application that OpenEnv's own commands can serve: see openenv.yaml beside this file."""

from reagent_env.plugins.openenv import make_app

app = make_app("reagent/PythonMath-v0", judge="rubric")
