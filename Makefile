# Agent Forge. Every target makes .venv when it is missing and brings it up to date when the lock is newer.
#
#   make forge [PROFILE=laptop]   run the chain: smoke (seconds), laptop (minutes), full (a GPU, hours)
#   make up                       Prefect, MLflow and a worker on this machine, until Ctrl-C
#   make doctor                   what is wrong on this machine, and the command that mends it
#   make test                     the quick tests; test-all adds the slow ones
#   make llama                    build llama.cpp's Python binding (once; minutes), for its tests and benchmarks
#   make browser                  the pages in headless Chromium, and the pictures in docs/images
#   make check                    lint, format, types, import contracts
#   make bench                    benchmarks against Hugging Face's Trainer, mergekit and the bare phases
#   make clean                    remove .venv and caches; runs in checkpoints/ stay

PROFILE ?= laptop
BIN := .venv/bin
READY := .venv/.installed
PIP := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check

# Tests run on one thread each, so a process a core; more than eight want more memory than they save time.
SIDE_BY_SIDE := --numprocesses auto --maxprocesses 8 --dist loadgroup

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help forge up doctor test test-all llama browser check bench clean
.DELETE_ON_ERROR:

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

# The stamp is written last, so an install that was cut off is done again.
$(READY): requirements.lock pyproject.toml
	@python=$$(for name in python3.11 python3 python; do \
	    if $$name -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then echo $$name; break; fi; \
	  done); \
	if [ -z "$$python" ]; then \
	  echo "make: Python 3.11 is needed and neither python3.11 nor python3 is one; install it and run make again" >&2; \
	  exit 2; \
	fi; \
	echo "installing into .venv (once; several minutes) …" >&2; \
	$$python -m venv .venv
	@$(PIP) -r requirements.lock
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

forge: $(READY)
	@$(BIN)/forge run --profile $(PROFILE)

# exec: Ctrl-C and SIGTERM go to the command itself.
up: $(READY)
	@exec $(BIN)/forge up

doctor: $(READY)
	@$(BIN)/forge doctor

test: $(READY)
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE)

test-all: llama
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not gpu"

llama: $(READY)
	@$(BIN)/python -c "import llama_cpp" 2> /dev/null || { \
	  echo "building llama-cpp-python (once; several minutes) …" >&2; \
	  $(PIP) --editable '.[llama]'; }

browser: $(READY) | chromium
	@FORGE_PICTURES=docs/images $(BIN)/python -m pytest -m slow tests/operation/test_browser.py

.PHONY: chromium
chromium:
	@command -v chromium > /dev/null || { \
	  echo "installing Debian's chromium …" >&2; \
	  apt-get install --quiet --quiet --yes chromium > /dev/null || { apt-get update --quiet --quiet && \
	    apt-get install --quiet --quiet --yes chromium > /dev/null; } || \
	  { echo "make: install chromium by hand, then run make browser again" >&2; exit 2; }; }

check: $(READY)
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(READY)
	@$(BIN)/python -m tests.benchmarks

clean:
	@rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
