# Two commands: `make sweep` shows the product on real frames, `make test` proves it. Both make the environment first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
FRAMES := runs/frames/doom
BENCH := .venv-bench

# What `make quick` runs: folders and files that need neither Ray, nor a server, nor captured frames.
QUICK := tests/core/losses tests/core/metrics/test_diagnoses.py tests/core/metrics/test_distances.py tests/core/model \
	tests/core/config tests/core/test_strict_yaml.py tests/search/config tests/search/journal \
	tests/search/running/test_scheduler.py tests/search/running/test_searcher.py tests/search/standings/test_pareto.py \
	tests/search/strategy tests/search/test_redaction.py tests/test_tiers.py
# Two files at a time; one thread in each, because two processes that want all cores slow each other down many times over.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --durations=12
LONG := OMP_NUM_THREADS=1 $(BIN)/pytest -v --durations=12
# Long tests on hosts of their own are one process, these another, the rest a third.
AWAY := tests/long/test_outage.py tests/long/test_storage.py
SPELLED := README.md Makefile cluster.yaml pyproject.toml search tests vaegan_core

.PHONY: sweep quick test test-long long-hosts long-here long-away readme gpu coverage matrix lint hooks constraints bench clean

# Continues a sweep that exists already; a finished one is only shown again.
sweep: $(INSTALLED)
	$(BIN)/vaegan data doom -o $(FRAMES) --frames 6000 --size 48x27 --seed 0
	$(BIN)/vaegan sweep search/sweeps/demo.yaml --resume

# The loop of a person at work: under a minute.
quick: $(INSTALLED)
	$(PYTEST) -q $(QUICK)

test: lint
	$(PYTEST) -m "not long and not readme"

# The fault and multi-host suites, minutes each, two at a time: they wait more than they work.
test-long: $(INSTALLED)
	$(MAKE) --jobs 2 --keep-going long-hosts long-here long-away

long-hosts: $(INSTALLED)
	$(LONG) -m "long and hosts"

long-here: $(INSTALLED)
	$(LONG) -m "long and not hosts" $(AWAY:%=--ignore=%)

long-away: $(INSTALLED)
	$(LONG) -m long $(AWAY)

# Types every command of README.md in a fresh clone: minutes.
readme: $(INSTALLED)
	$(BIN)/pytest -m readme

# On a machine with a CUDA device; leaves a table in runs/gpu.md.
gpu: $(INSTALLED)
	$(BIN)/pytest -m gpu

# Which branches the quick tier takes: printed, not judged.
coverage: $(INSTALLED)
	$(PYTEST) -q --cov=search --cov=vaegan_core --cov-branch --cov-report=term:skip-covered $(QUICK)

# The quick tier on every Python that the pinned packages support, as far as this machine has it on its PATH.
matrix: quick-3.11 quick-3.12 quick-3.13 quick-3.14

quick-%:
	@if python$* -c "" 2>/dev/null; then $(MAKE) quick PYTHON=python$* VENV=.venv-$*; else echo "Python $*: not here"; fi

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell $(SPELLED)
	$(BIN)/mypy

# Every commit runs `make lint` first.
hooks:
	printf '#!/bin/sh\nexec make lint\n' > "$$(git rev-parse --git-path hooks)/pre-commit"
	chmod +x "$$(git rev-parse --git-path hooks)/pre-commit"

# Pins what pyproject.toml allows, for every platform and Python; versions pinned already stay where they still fit.
# To move one: add `--upgrade-package NAME`.
constraints: $(INSTALLED)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --no-annotate \
		--custom-compile-command "make constraints" pyproject.toml -o constraints.txt

# How fast, against what, where the time goes, and how good the search is: tables here, figures in
# runs/bench/report.html; about 30 minutes.
bench: $(BENCH)/.installed
	$(BENCH)/bin/python tests/benchmarks/bench.py

# An environment of its own: pythae, which is compared with, brings packages that nothing else needs.
$(BENCH)/.installed: $(INSTALLED)
	$(BIN)/uv venv --quiet --allow-existing --python $(PYTHON) $(BENCH)
	$(BIN)/uv pip install --quiet --python $(BENCH)/bin/python --constraints constraints.txt --editable ".[bench,doom]"
	touch $@

# The environment. uv installs; byte code is compiled at once, which every later start is quicker for.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --constraints constraints.txt --editable ".[dev,doom]"
	touch $@

clean:
	rm -rf .venv .venv-* .mypy_cache .ruff_cache .pytest_cache build *.egg-info
