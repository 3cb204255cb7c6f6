# Two commands: `make sweep` shows the product on real frames, `make test` proves it. Both make the environment first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
FRAMES := runs/frames/doom
BENCH := .venv-bench

.PHONY: sweep test test-long lint bench clean

# A sweep that is there already is gone on with, or only shown again.
sweep: $(INSTALLED)
	$(BIN)/vaegan data doom -o $(FRAMES) --frames 6000 --size 48x27 --seed 0
	$(BIN)/vaegan sweep search/sweeps/demo.yaml --resume

# Two files at a time; one thread in each, for two that want all cores slow each other down many times over.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not long" -n 2 --dist loadfile

# The fault and multi-host suites: minutes each.
test-long: $(INSTALLED)
	$(BIN)/pytest -m long

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

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
	$(BIN)/pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --constraints constraints.txt --editable ".[dev,doom]"
	touch $@

clean:
	rm -rf $(VENV) $(BENCH) .mypy_cache .ruff_cache .pytest_cache build *.egg-info
