# Everything here sets itself up in .venv from the committed locks; nothing else on the machine is touched.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-builtin-rules --no-print-directory

PYTHON ?= python3
BIN := .venv/bin

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ---- set-up -------------------------------------------------------------------------------------
.venv/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "flex-import needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.11 ..." >&2; exit 2; }
	@echo "Making .venv ..."
	@$(PYTHON) -m venv .venv
	@touch $@

.venv/.run: requirements.lock pyproject.toml | .venv/.made
	@echo "Installing what flex-import needs ..."
	@$(BIN)/python -m pip install -q --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	@touch $@

.venv/.dev: requirements-dev.lock .venv/.run
	@echo "Installing what its tests need ..."
	@$(BIN)/python -m pip install -q --require-hashes -r requirements-dev.lock
	@touch $@

.PHONY: setup
setup: .venv/.dev ## Install everything for development into .venv

.PHONY: lock
lock: .venv/.dev ## Renew the locks from pyproject.toml (exact versions, hashes, no addresses)
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-strip-extras --custom-compile-command 'make lock' --extra phone --extra fast --extra fleet -o requirements.lock --group build pyproject.toml
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-strip-extras --custom-compile-command 'make lock' --extra phone --extra fast --extra fleet -c requirements.lock --group build --group dev -o requirements-dev.lock pyproject.toml

# ---- use ----------------------------------------------------------------------------------------
.PHONY: run
run: .venv/.run ## Import samples/ into a Flex API emulated on this machine
	@$(BIN)/python samples/demo.py

# ---- checks -------------------------------------------------------------------------------------
.PHONY: check
check: .venv/.dev ## Lint and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

.PHONY: fix
fix: .venv/.dev ## Format, and repair what ruff can repair
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: test
test: .venv/.dev ## All tests, with branch coverage
	@$(BIN)/python -m pytest -n 2 --cov --cov-report=term $(ARGS)

.PHONY: bench
bench: .venv/.dev ## Rows a second beside other ways to post them, on nginx (ten minutes; ARGS="--rounds 1 --only flex plain")
	@$(BIN)/python -m tests.bench.speed $(ARGS)

.PHONY: bench-guard
bench-guard: .venv/.dev ## Fail when an import has become much slower than a plain loop (a minute; a ratio within one run)
	@$(BIN)/python -m tests.bench.speed --rows 10000 --rounds 3 --only "flex-import, baselines off" plain --least 0.45

.PHONY: bench-memory
bench-memory: .venv/.dev ## Peak memory at 10,000 and at 1,000,000 rows (a quarter of an hour)
	@$(BIN)/python -m tests.bench.memory

.PHONY: bench-files
bench-files: .venv/.dev ## Rows a second of check, of passing over what is done, of export, beside a bare loop; start-up (ten minutes; ARGS="--rows 100000")
	@$(BIN)/python -m tests.bench.files $(ARGS)

.PHONY: bench-growth
bench-growth: .venv/.dev ## What a row costs with 10,000 and with 5,000,000 rows in the ledger (five minutes)
	@$(BIN)/python -m tests.bench.growth $(ARGS)

.PHONY: bench-fleet
bench-fleet: .venv/.dev ## What a ledger in PostgreSQL costs, and what a second worker brings (five minutes)
	@$(BIN)/python -m tests.bench.fleet $(ARGS)

.PHONY: bench-limits
bench-limits: .venv/.dev ## Goodput, 429s and bursts under known, unknown and changing limits (an hour; ARGS="--rounds 1")
	@$(BIN)/python -m tests.bench.limits $(ARGS)

.PHONY: clean
clean: ## Remove what make run and make test left (the ledger of make run too)
	@rm -rf run .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis

.PHONY: torture
torture: .venv/.dev ## Kill, freeze, stop and undo real imports while everything goes wrong (ten minutes; ARGS="--rows 500 --kills 10")
	@$(BIN)/python -m tests.torture $(ARGS)

.PHONY: torture-fleet
torture-fleet: .venv/.dev ## The same to several workers and their database (a quarter of an hour; ARGS="--rows 2000 --channels 200")
	@$(BIN)/python -m tests.torture.fleet $(ARGS)

.PHONY: mutants
mutants: .venv/.dev ## Put deliberate bugs into copies of the code: the tests must notice each (two minutes)
	@$(BIN)/python -m tests.mutants $(ARGS)

.PHONY: fuzz
fuzz: .venv/.dev ## Arbitrary bytes for what reads inputs, and answers (a minute; ARGS="--minutes 10 --target answers")
	@$(BIN)/python -m tests.fuzz $(ARGS)

.PHONY: explore
explore: .venv/.dev ## Every short story of one channel: no promise may break, each assumption is needed (three minutes)
	@$(BIN)/python -m tests.explore $(ARGS)
