# On a machine with Python 3.11 or 3.12, pip, git and make, each target sets up what it needs in .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/set-up
DEMO := $(VENV)/demo

MINUTES := 30
STORAGE := runs
FULL :=
REPEATS := 5
RACE := benchmarks/race/.venv
KEEP :=
OUT := runs/race
PEERS := ray_tutorial optuna_hyperband keras_random keras_hyperband

.PHONY: help setup demo example test test-slow test-gpu test-faults test-hosts soak bench bench-long bench-race bench-scale check lock clean

help:
	@echo "make demo    set up, search the built-in digits, analyse, predict: the whole way in under 3 minutes"
	@echo "make example NAME=characters DATA=FILE   a worked example (examples/) on your images (FULL=--full for a GPU)"
	@echo "make test    set up and run the tests"
	@echo "make test-slow     what takes minutes: large models exported to every format"
	@echo "make test-gpu      what needs a CUDA GPU, and is skipped without one; all other tests run on the CPU"
	@echo "make test-faults   kills, full disks, hangs, memory: for real, in some half an hour"
	@echo "make test-hosts    searches on several hosts in network namespaces, killed and cut off: needs root, some 20 minutes"
	@echo "make soak MINUTES=30   kill a search at random, then check that nothing was lost"
	@echo "make bench   how fast it is, in some eight minutes (KEEP=--keep writes benchmarks/RESULTS.md)"
	@echo "make bench-long   the rows of the README that take longer: some 45 minutes"
	@echo "make bench-race REPEATS=5   against Ray Tune's tutorial, Optuna and Keras Tuner: some 21 minutes a repeat"
	@echo "             (CONVSCOUT_CIFAR10=FILE names a zip of CIFAR-10 for all three: train|test/CLASS/*.jpg)"
	@echo "make bench-scale          10,000 trials on 64 hosts, on paper: some half an hour"
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
	rm -rf $(DEMO)
	$(BIN)/python examples/run.py digits --data digits --storage $(DEMO)

example: $(SETUP)
	$(BIN)/python examples/run.py $(NAME) --data $(DATA) --storage $(STORAGE) $(FULL)

test: $(SETUP)
	$(BIN)/python -m pytest

test-slow: $(SETUP)
	$(BIN)/python -m pytest -m slow tests

test-gpu: $(SETUP)
	$(BIN)/python -m pytest -m gpu tests

test-faults: $(SETUP)
	$(BIN)/python -m pytest -m faults tests

# Ray's job server needs more packages, whose agents slow down a start of Ray on one machine.
test-hosts: $(SETUP)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --requirement cluster/requirements.lock
	$(BIN)/python -m pytest -m hosts tests

soak: $(SETUP)
	$(BIN)/python tests/faults/soak.py --minutes $(MINUTES)

bench: $(SETUP)
	$(BIN)/python benchmarks/epoch.py $(KEEP)
	$(BIN)/python benchmarks/tutorial.py $(KEEP)
	$(BIN)/python benchmarks/augmentation.py $(KEEP)
	$(BIN)/python benchmarks/handover.py $(KEEP)
	$(BIN)/python benchmarks/overhead.py --trials 20 --rounds 3 $(KEEP)
	$(BIN)/python benchmarks/occupancy.py --trials 40 $(KEEP)
	$(BIN)/python benchmarks/startup.py $(KEEP)
	$(BIN)/python benchmarks/decoding.py $(KEEP)
	$(BIN)/python benchmarks/frozen.py $(KEEP)

bench-long: $(SETUP)
	$(BIN)/python benchmarks/tutorial.py --accuracy --seeds 30 $(KEEP)
	$(BIN)/python benchmarks/overhead.py --trials 1000 $(KEEP)
	$(BIN)/python benchmarks/overhead.py --trials 10000 --reports 1 --rounds 1 $(KEEP)
	$(BIN)/python benchmarks/occupancy.py --trials 200 $(KEEP)
	$(BIN)/python benchmarks/together.py $(KEEP)
	$(BIN)/python benchmarks/sharing.py $(KEEP)
	$(BIN)/python benchmarks/plan.py $(KEEP)
	$(BIN)/python benchmarks/alarms.py $(KEEP)

# The peers have an environment of their own: they want other versions than ours.
$(RACE)/set-up: $(SETUP) benchmarks/race/requirements.txt
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(RACE)
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(RACE)/bin/python \
		--requirement benchmarks/race/requirements.txt
	@touch $@

bench-race: $(RACE)/set-up
	$(RACE)/bin/python benchmarks/race/race.py --out $(OUT) --repeats $(REPEATS) --seconds 240 \
		--peers $(PEERS) $(KEEP)

bench-scale: $(SETUP)
	$(BIN)/python benchmarks/scale.py $(KEEP)

check: $(SETUP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

lock: $(SETUP)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev --extra onnx --upgrade --no-header \
		--no-annotate --no-emit-index-url --no-emit-find-links --output-file requirements.lock setup.cfg
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra cluster --extra s3 --extra gcs \
		--upgrade --constraint requirements.lock --no-header --no-annotate --no-emit-index-url --no-emit-find-links --output-file cluster/requirements.lock setup.cfg

clean:
	rm -rf $(VENV) $(RACE) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
