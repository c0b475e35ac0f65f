# The developer's command table. Everything starts from `make setup`, which builds the locked environment in .venv.
SHELL := /bin/bash
PY ?= python3
UV := .tools/bin/uv
BIN := .venv/bin
export UV_PYTHON_DOWNLOADS := never

.PHONY: setup
setup: .venv/.stamp

$(UV): tools.txt
	@echo "==> tools: uv, in .tools"
	@test -x .tools/bin/python || $(PY) -m venv .tools
	@.tools/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tools.txt
	@touch $@

.venv/.stamp: $(UV) pyproject.toml uv.lock
	@echo "==> locked environment, in .venv"
	@$(UV) sync --frozen --quiet --python $(PY)
	@touch $@
