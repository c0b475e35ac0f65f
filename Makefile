# The developer's command table. Everything starts from `make setup`, which builds the locked environment in .venv.
SHELL := /bin/bash
# A distribution's own Python is built with profile-guided optimisation, so it comes first where it is new enough.
PY ?= $(shell for p in /usr/bin/python3 python3; do $$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
UV := .tools/bin/uv
BIN := .venv/bin
export UV_PYTHON_DOWNLOADS := never
export UV_NO_PROGRESS := 1

.PHONY: help setup demo up down test test-agents test-deep check format bench compile clean
help:
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: .venv/.stamp ## build the locked environment in .venv (the others do it first)

$(UV): tools.txt
	@test -n "$(PY)" || { echo "make setup needs python3 of version 3.11 or newer, with venv (Debian: apt install python3-venv)" >&2; exit 2; }
	@echo "==> tools: uv, in .tools"
	@test -x .tools/bin/python || $(PY) -m venv .tools
	@.tools/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tools.txt
	@touch $@

.venv/.stamp: $(UV) pyproject.toml uv.lock
	@echo "==> locked environment, in .venv ($$($(PY) --version))"
	@$(UV) sync --frozen --quiet --python $(PY)
	@touch $@

# The agent of the demo and of tests has an environment of its own: what it needs must not meet what the gateway needs.
.venv-agent/.stamp: $(UV) demo/agent/pyproject.toml demo/agent/uv.lock
	@echo "==> a real agent (mini-swe-agent), in .venv-agent"
	@UV_PROJECT_ENVIRONMENT="$(CURDIR)/.venv-agent" $(UV) sync --frozen --quiet --project demo/agent --python $(PY)
	@touch $@

demo: setup .venv-agent/.stamp ## run the main job end to end against a local AWS stand-in
	@$(BIN)/python demo/demo.py

up: setup ## start the gateway and leave it running
	@$(BIN)/narrows up --detach

down: setup ## stop it
	@$(BIN)/narrows down

.venv/.stamp-test: .venv/.stamp
	@echo "==> what only tests need: OpenBao, which serves Vault's API"
	@$(UV) sync --frozen --quiet --group vault --python $(PY)
	@touch $@

test: setup .venv-agent/.stamp .venv/.stamp-test ## the whole suite
	@$(BIN)/python -m pytest

test-agents: setup ## Claude Code, Codex and opencode through the gateway; downloads them (1 GB, needs npm)
	@NARROWS_TEST_AGENTS=install $(BIN)/python -m pytest --timeout 900 -m agents

test-deep: setup .venv-agent/.stamp .venv/.stamp-test ## longer fuzzing, soaks and fault runs
	@NARROWS_TEST_DEEP=1 $(BIN)/python -m pytest --timeout 3600 -m "deep or not deep"

check: setup ## lint, types and import contracts
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

bench: setup ## measure against peers; writes bench/results/summary.json and docs/performance.md
	@if $(CAN_COMPILE); then $(MAKE) --no-print-directory compile && .venv-compiled/bin/python bench/run.py --compiled; \
	else echo "==> no C compiler or no Python headers: measuring the interpreted modules"; $(BIN)/python bench/run.py; fi

# The hot modules as C extensions, in an environment of their own: .venv always runs the source that you edit.
CAN_COMPILE = command -v cc >/dev/null && $(BIN)/python -c 'import pathlib, sysconfig, sys; sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists())'
compile: setup ## compile the hot modules with mypyc into .venv-compiled (needs cc and Python's headers)
	@$(CAN_COMPILE) || { echo "make compile needs a C compiler and Python's headers (Debian: apt install gcc python3-dev)" >&2; exit 2; }
	@echo "==> compiling the hot modules (about a minute)"
	@rm -rf build/compile build/wheels && mkdir -p build/compile && cp -r src pyproject.toml README.md LICENSE build/compile/
	@cd build/compile && PATH="$(CURDIR)/$(BIN):$$PATH" HATCH_BUILD_HOOK_ENABLE_MYPYC=true \
		"$(CURDIR)/$(UV)" build --quiet --wheel --no-build-isolation --python "$(CURDIR)/$(BIN)/python" --out-dir "$(CURDIR)/build/wheels"
	@UV_PROJECT_ENVIRONMENT=.venv-compiled $(UV) sync --frozen --quiet --no-install-project --python $(PY)
	@$(UV) pip install --quiet --no-deps --reinstall --python .venv-compiled/bin/python build/wheels/*.whl

clean: ## remove what make built
	rm -rf .venv .venv-compiled .tools build .mypy_cache .ruff_cache .pytest_cache .hypothesis
