# Every command a developer runs; CI runs the same.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PARITY_VENV := .venv-parity
PARITY_READY := $(PARITY_VENV)/.ready
SPANS_VENV := .venv-spans
SPANS_READY := $(SPANS_VENV)/.ready
INFINITY_VENV := .venv-infinity
INFINITY_READY := $(INFINITY_VENV)/.ready
FUZZ_VENV := .venv-fuzz
FUZZ_READY := $(FUZZ_VENV)/.ready
PACKAGES := core sdk server gateway config airgap testing
SPANS_TESTS := tests/parity/test_gliner.py tests/parity/test_gliner_bi.py tests/parity/test_gliclass.py
LOCKS := requirements/bootstrap.txt requirements/dev.txt
SOURCES := $(foreach name,$(PACKAGES),packages/sie-$(name)/src)

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | sort | \
	  while IFS=$$'\t' read -r name what; do printf '  make %-10s %s\n' "$$name" "$$what"; done

.PHONY: setup
setup: $(READY) ## the virtual environment, its dependencies by hash, and the system's tools where this is root
	@tools/setup.sh system

$(READY): $(LOCKS) tools/setup.sh $(wildcard packages/*/pyproject.toml)
	@tools/setup.sh environment $(VENV) $(LOCKS) -- $(PACKAGES)
	@touch $@

.PHONY: demo
demo: setup ## the guide's five steps on this machine, the last three without a network: real weights, bucket, Helm
	@$(BIN)/python -m sie_testing.demo $(ARGS)

.PHONY: test
test: setup ## the tests, or with ARGS=… those that pytest is told to run
	@$(BIN)/python -m sie_testing.parts all > /dev/null
	@$(BIN)/$(if $(strip $(ARGS)),pytest $(ARGS),python tools/side_by_side.py)

.PHONY: check
check: setup ## format, lint, types, import contracts, generated files, the wheels alone
	@$(BIN)/ruff format --check -q . && $(BIN)/ruff check -q . && echo "ruff: clean"
	@$(BIN)/mypy $(SOURCES) tools bench fuzz
	@$(BIN)/python tools/types_of_tests.py
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python tools/unasync.py --check
	@$(BIN)/python tools/catalog.py --check
	@$(BIN)/python tools/schema.py --check
	@$(BIN)/python tools/reference.py --check
	@$(BIN)/python tools/wheels.py

.PHONY: fix
fix: setup ## format, and write the generated files anew
	@$(BIN)/ruff check -q --fix . ; $(BIN)/ruff format -q .
	@$(BIN)/python tools/unasync.py
	@$(BIN)/python tools/catalog.py
	@$(BIN)/python tools/schema.py
	@$(BIN)/python tools/reference.py

$(PARITY_READY): requirements/parity.txt $(LOCKS) tools/setup.sh
	@tools/setup.sh references $(PARITY_VENV) $(LOCKS) requirements/parity.txt -- $(PACKAGES)
	@touch $@

$(SPANS_READY): requirements/spans.txt $(LOCKS) tools/setup.sh
	@tools/setup.sh references $(SPANS_VENV) $(LOCKS) requirements/spans.txt -- $(PACKAGES)
	@touch $@

$(INFINITY_READY): requirements/infinity.txt requirements/bootstrap.txt tools/setup.sh
	@tools/setup.sh references $(INFINITY_VENV) requirements/bootstrap.txt requirements/infinity.txt --
	@touch $@

$(FUZZ_READY): requirements/fuzz.txt $(LOCKS) tools/setup.sh
	@tools/setup.sh environment $(FUZZ_VENV) $(LOCKS) requirements/fuzz.txt -- $(PACKAGES)
	@touch $@

.PHONY: parity
parity: setup $(PARITY_READY) $(SPANS_READY) ## ours beside transformers, sentence-transformers, gliner and gliclass, live
	@$(BIN)/python -m sie_testing.parts minilm > /dev/null
	@$(PARITY_VENV)/bin/python -m pytest tests/parity -m "parity and not gpu" $(ARGS)
	@$(SPANS_VENV)/bin/python -m pytest $(SPANS_TESTS) -m "parity and not gpu" $(ARGS)

.PHONY: parity-large
parity-large: setup $(PARITY_READY) ## the same on the guide's models in their true shape: 4.5 GB are written once
	@$(BIN)/python -m sie_testing.parts minilm > /dev/null
	@$(PARITY_VENV)/bin/python -m pytest tests/parity/test_true_shapes.py -m parity_large $(ARGS)

.PHONY: gpu
gpu: setup $(PARITY_READY) ## parity and the bench on a CUDA device; where torch sees none, says so and ends well
	@if $(PARITY_VENV)/bin/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then \
	  $(BIN)/python -m sie_testing.parts minilm > /dev/null && \
	  $(PARITY_VENV)/bin/python -m pytest tests/parity -m gpu && \
	  SIE_DEVICE=cuda $(PARITY_VENV)/bin/python -m bench $(ARGS); \
	else echo "gpu: torch sees no CUDA device here; nothing was run (docs/guides/gpu.md)"; fi

.PHONY: gap
gap: setup wheels ## the real hub clients of several versions, the published client, the carried wheels: fetched once
	@$(BIN)/pytest -m "hub_versions or published_client or gap_large or gap_kills or gap_servers" packages/sie-core \
	  packages/sie-airgap packages/sie-testing packages/sie-server/tests/test_hub_clients_offline.py \
	  packages/sie-server/tests/test_killed_in_a_range.py packages/sie-server/tests/test_local_cache.py tests/contract \
	  tests/journeys/test_by_hand.py $(ARGS)

.PHONY: bench
bench: setup $(PARITY_READY) ## speed and memory beside the peers, as ratios of one run
	@$(BIN)/python -m sie_testing.parts minilm > /dev/null
	@$(MAKE) -s $(INFINITY_READY) || echo "bench: no environment for infinity: it is left out" >&2
	@$(BIN)/python -m bench $(ARGS)

.PHONY: fuzz
fuzz: setup $(FUZZ_READY) ## what comes from outside, altered for ever: read, or refused by name
	@$(FUZZ_VENV)/bin/python -m fuzz $(ARGS)

.PHONY: lock
lock: setup ## resolve requirements/*.in anew, with hashes
	@tools/setup.sh lock $(BIN)

.PHONY: wheels
wheels: setup ## what an archive carries of Python: ours, and what they need on each Python and machine, by hash
	@tools/setup.sh wheels $(BIN) dist/wheels

.PHONY: clean
clean: ## remove the environments and everything that was fetched or built
	@rm -rf $(VENV) $(PARITY_VENV) $(SPANS_VENV) $(INFINITY_VENV) $(FUZZ_VENV) .cache .demo dist build
