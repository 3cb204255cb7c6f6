# Two commands: `make sweep` shows the product on real frames, `make test` proves it. Both make the environment first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
FRAMES := runs/frames/doom

.PHONY: sweep test test-long lint clean

# A sweep that is there already is gone on with, or only shown again.
sweep: $(INSTALLED)
	$(BIN)/vaegan data doom -o $(FRAMES) --frames 6000 --size 48x27 --seed 0
	$(BIN)/vaegan sweep search/sweeps/demo.yaml --resume

test: lint
	$(BIN)/pytest -m "not long"

# The fault and multi-host suites: minutes each.
test-long: $(INSTALLED)
	$(BIN)/pytest -m long

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The environment. uv installs; byte code is compiled at once, which every later start is quicker for.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --constraints constraints.txt --editable ".[dev,doom]"
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build *.egg-info
