# Everything runs in the repository's own environment. `make demo` and `make test` need Python 3.11+ and nothing else.
PYTHON ?= python3
VENV ?= .venv
# Two workers suit two cores; one thread each, or they fight over the cores.
JOBS ?= 2
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 1

.PHONY: setup demo test test-fast lint evidence bench clean

setup: $(VENV)/.ready

# The stamp file says that this pyproject.toml has been installed, so that setup happens once.
# torch is pinned: without a pin, pip takes the newest build, which brings several GB of CUDA libraries that a laptop
# has no use for. Where a small CPU build of this version is at hand, pip prefers it. A torch that is there already is kept.
$(VENV)/.ready: pyproject.toml setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: $(PYTHON) is older than 3.11; next: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/python -m pip install --quiet "torch==2.13.0"
	$(BIN)/python -m pip install --quiet -e ".[train,tau2,mcp,dev]"
	@touch $@

demo: setup
	$(BIN)/python examples/demo.py

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The fast suite first, so that a plain mistake shows within minutes; then what takes real processes.
test: lint
	$(BIN)/python -m pytest -q -n $(JOBS) -m "not slow"
	$(BIN)/python -m pytest -q -n $(JOBS) -m slow

test-fast: setup
	$(BIN)/python -m pytest -q -n $(JOBS) -m "not slow"

# make evidence ID=demo-scores: runs the command of one row of docs/evidence.md and rewrites the row.
evidence: setup
	@test -n "$(ID)" || { echo "error: which row? next: make evidence ID=demo-scores" >&2; exit 64; }
	$(BIN)/python docs/evidence.py $(ID)

bench: setup
	@for program in benchmarks/*.py; do echo "== $$program" >&2; $(BIN)/python $$program || exit 1; done

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
