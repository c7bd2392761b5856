# `make run` and `make test` are all a fresh machine needs: Python 3.11, git and make.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
STATE ?= ./var
SECONDS ?= 60
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install run test test-fast soak demo check clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST)

# The stamp is touched last, so that an interrupted installation is started over.
$(STAMP): pyproject.toml constraints.txt
	"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	"$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	touch $@

.venv: $(STAMP)

install: $(STAMP)  ## create .venv with every pinned dependency

run: $(STAMP)  ## fetch and verify the default model, initialise $(STATE), start the daemon
	$(BIN)/palimpsest init --state "$(STATE)"
	exec $(BIN)/palimpsest run --state "$(STATE)"

test: $(STAMP)  ## fetch the model and run the whole suite
	$(BIN)/palimpsest fetch-model
	$(BIN)/python -m pytest

test-fast: $(STAMP)  ## run the quick tests: no model, no processes, about a minute
	$(BIN)/python -m pytest -m 'not model and not slow'

soak: $(STAMP)  ## run the daemon on a tiny model for SECONDS under drops, kills and rollbacks
	$(BIN)/python -m tests.soak --seconds "$(SECONDS)"

demo: $(STAMP)  ## change a fact, retract one, roll back, and prove each step
	$(BIN)/palimpsest demo

check: $(STAMP)  ## lint, types, import rules, docs and metric names
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/docs

clean:  ## remove the virtual environment and caches (never the state directory)
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
