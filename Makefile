# On a machine with Python 3.11 or 3.12, pip, git and make, each target sets up what it needs in .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/set-up
DEMO := $(VENV)/demo

MINUTES := 30

.PHONY: help setup demo test test-faults soak check lock clean

help:
	@echo "make demo    set up, search the built-in digits, analyse, predict: the whole way in under 3 minutes"
	@echo "make test    set up and run the tests"
	@echo "make test-faults   kills, full disks, hangs, memory: for real, in some 20 minutes"
	@echo "make soak MINUTES=30   kill a search at random, then check that nothing was lost"
	@echo "make check   set up and run ruff (format and lint) and mypy (strict)"
	@echo "make lock    pin the newest versions of all dependencies in requirements.lock"
	@echo "make clean   remove .venv and what the tools left"

setup: $(SETUP)

$(SETUP): requirements.lock setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --requirement requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

demo: $(SETUP)
	$(BIN)/python examples/demo.py $(DEMO)

test: $(SETUP)
	$(BIN)/python -m pytest

test-faults: $(SETUP)
	$(BIN)/python -m pytest -m faults tests

soak: $(SETUP)
	$(BIN)/python tests/faults/soak.py --minutes $(MINUTES)

check: $(SETUP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

lock: $(SETUP)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev --upgrade --no-header --no-annotate \
		--no-emit-index-url --no-emit-find-links --output-file requirements.lock setup.cfg

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
