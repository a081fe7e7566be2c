# Verbs of this project. `make` alone prints them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup check fix test test-slow fuzz demo bench bench-tables lock clean

help:  ## print these verbs
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | awk -F '\t' '{printf "  make %-13s %s\n", $$1, $$2}'

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch first and pinned: a range would fetch the newest build with gigabytes of CUDA libraries
.venv-ready: pyproject.toml requirements.lock | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 -c requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c requirements.lock
	@touch $@

setup: .venv-ready  ## make the environment with everything in it

check: setup  ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: setup  ## format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: setup  ## all tests but the long journeys
	$(BIN)/python -m pytest -m "not slow"

test-slow: setup  ## only the long journeys: real processes, minutes
	$(BIN)/python -m pytest -m slow

fuzz: setup  ## a million changed inputs for every reader of bytes from outside; minutes
	$(BIN)/python -m tests.fuzz

demo: setup  ## the whole loop on this machine; prints one URL
	$(BIN)/millwright demo

bench: setup  ## the benchmarks that need no data set
	$(BIN)/python benchmarks/footprint.py
	$(BIN)/python benchmarks/agent_intake.py

bench-tables: setup  ## run the benchmarks (DATA=folder of data sets: all of them) and write their figures into the README
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]' -c requirements.lock
	$(BIN)/python benchmarks/tables.py $(if $(DATA),--data $(DATA))

lock: setup  ## write requirements.lock from the environment that the tests passed in
	$(BIN)/python -m pip freeze --exclude-editable | sed -E 's/^torch(==[0-9.]+).*/torch\1/; s/ @ .*//' > requirements.lock

clean:  ## remove the environment and caches
	rm -rf $(VENV) .venv-ready .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
