# Two commands do all the set-up: `make demo` (the main job) and `make test`.
# Each makes its own .venv; on Debian, as root, missing system packages are installed too.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2

.PHONY: help demo tiny tiny-rrm families test plugins test-vllm lint attacks soak bench clean bubblewrap docker media
.DEFAULT_GOAL := help
help:                ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

$(VENV)/ready: pyproject.toml constraints/cpu.txt scripts/make-venv
	PYTHON=$(PYTHON) scripts/make-venv $(VENV) dev train
	@touch $@

bubblewrap:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then scripts/ensure-system bubblewrap util-linux; fi

docker:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then scripts/ensure-system; fi
	@scripts/ensure-docker || echo "Going on without Docker: its tests will fail if REAGENT_REQUIRE_DOCKER=1, else skip."

demo: $(VENV)/ready bubblewrap   ## set up, then an agent learns: Reagent-U, ten minutes on two cores
	$(BIN)/reagent doctor
	$(BIN)/reagent demo

media:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then scripts/ensure-system tesseract-ocr flite; fi

families:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then scripts/ensure-system default-jre-headless chromium; fi

test: $(VENV)/ready docker media families   ## set up, lint, type-check, test (both sandboxes)
	$(BIN)/reagent sandbox build || [ "$$REAGENT_REQUIRE_DOCKER" != 1 ]
	$(MAKE) lint
	$(BIN)/python -m pytest -m alone
	$(BIN)/python -m pytest -n $(JOBS) -m "not alone and not attacks and not soak and not vllm"

lint: $(VENV)/ready
	scripts/link-typing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .typing/reagent_env

attacks: $(VENV)/ready docker   ## every attack x 20 on each sandbox, its twin without the guard (30 minutes)
	$(BIN)/python -m pytest tests/attacks tests/hygiene -m "attacks or not attacks" --attack-times 20

test-vllm: $(VENV)/ready docker   ## a real vLLM server plays an environment (first time: 5 minutes, 3 GB)
	PYTHON=$(PYTHON) scripts/make-vllm-venv .venv-vllm
	$(BIN)/python -m pytest tests/served -m vllm --timeout 1500

tiny: $(VENV)/ready docker   ## train the policy `tiny` anew, from nothing (about an hour on two cores)
	$(BIN)/reagent train --config trainers/configs/tiny-clean.toml --out runs/tiny-clean
	$(BIN)/reagent train --config trainers/configs/tiny.toml --out runs/tiny
	$(BIN)/python -m reagent_env.trainers.policies.tiny runs/tiny

# Plug-ins whose libraries' pins agree with ours (sb3, trl) are in .venv too, so `make test` runs them.
PLUGINS ?= sb3 trl verl verifiers openenv skyrl rllib ray
plugins:             ## every plug-in in a virtual environment of its own; writes the README's table
	@failed=0; printf '%s\n' $(PLUGINS) | PYTHON=$(PYTHON) xargs -P $(JOBS) -n 1 scripts/test-plugin || failed=1; \
	$(PYTHON) scripts/plugins-table build/plugins && exit $$failed

tiny-rrm: $(VENV)/ready docker   ## train the judge `tiny-rrm` anew: plant flaws, train, put it into the package
	$(BIN)/reagent train judge-sft --set epochs=2 --out runs/tiny-rrm
	$(BIN)/reagent train judge-sft --set epochs=2 --set seed=1 --set sound_epochs=0 --set data=runs/tiny-rrm/judge_data.jsonl \
	  --out runs/tiny-rrm-2
	$(BIN)/python -m reagent_env.trainers.judge_sft runs/tiny-rrm runs/tiny-rrm-2

soak: $(VENV)/ready docker families   ## 2,000 episodes; files, processes, memory stay flat
	$(BIN)/python -m pytest tests/soak -m soak

.venv-bench/ready: pyproject.toml
	PYTHON=$(PYTHON) scripts/make-venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --no-deps gem-llm==0.1.0
	.venv-bench/bin/python -m pip install --quiet skyrl-gym==0.4.0
	@touch $@

BENCH ?=
bench: $(VENV)/ready .venv-bench/ready docker families   ## every benchmark, both sides in one run; a table and a picture (an hour)
	$(BIN)/python benchmarks/suite.py $(BENCH)

clean:               ## remove the virtual environment and caches
	rm -rf $(VENV) .venv-* .typing .mypy_cache .ruff_cache .pytest_cache build *.egg-info
