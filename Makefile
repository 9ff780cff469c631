# Every step of development and of CI. `make help` lists the targets; each does all of its own set-up, and nothing twice:
# the files under .build/ are stamps, newer than everything that their step read.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
# Extra arguments: make serve ARGS="--workers 4", make test-python ARGS="-k statsd -x".
ARGS ?=

BIN := $(VENV)/bin
STAMPS := .build
PIP := $(BIN)/python -m pip --disable-pip-version-check -q install -c ci/constraints.txt
# The interpreter that the extension is built for, the same in every cargo call, so that nothing is built twice.
export PYO3_PYTHON := $(abspath $(BIN)/python)
export CARGO_TERM_COLOR ?= auto

RUST_SOURCES := Cargo.toml Cargo.lock $(shell find rust -type f -not -path '*/tests/*' -not -name '*.md')
PYTHON_CODE := python tests benches scripts

.PHONY: help
help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- set-up ---------------------------------------------------------------------------------------------------------

$(STAMPS)/venv: scripts/venv.sh
	@scripts/venv.sh $(VENV) "$(PYTHON)"
	@mkdir -p $(STAMPS) && touch $@

# $(STAMPS)/need-GROUP: the packages of that group of pyproject.toml.
$(STAMPS)/need-%: $(STAMPS)/venv pyproject.toml ci/constraints.txt scripts/requirements.py
	@echo "== installing Python packages: $*"
	@$(PIP) -r <($(BIN)/python scripts/requirements.py $*)
	@touch $@

# The release build of agent._core, and the package itself, installed so that edits of python/ are seen at once.
$(STAMPS)/extension: $(STAMPS)/need-build $(STAMPS)/need-runtime pyproject.toml $(RUST_SOURCES)
	@echo "== building the extension (release)"
	@VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --release --quiet \
		| sed -e '/^Ignoring /d' -e '/^Requirement already /d'
	@touch $@

.PHONY: build
build: $(STAMPS)/extension  ## the virtual environment and the extension

# --- use ------------------------------------------------------------------------------------------------------------

.PHONY: serve
serve: $(STAMPS)/extension  ## run the collector on its default addresses (ARGS="..." for its flags)
	@exec $(BIN)/python -m agent serve $(ARGS)

# --- test -----------------------------------------------------------------------------------------------------------

.PHONY: test
test: test-rust test-python  ## all tests: cargo test and pytest, with real peers

# agent-py is left out: a test binary of it would need a libpython to link with. What can be tested without Python stands
# in the other crates; pytest tests what cannot.
.PHONY: test-rust
test-rust: $(STAMPS)/venv  ## cargo test of the crates that know no Python
	cargo test --workspace --exclude agent-py --locked --quiet

.PHONY: loom
loom: $(STAMPS)/venv  ## orders of events in the lock-free parts, within bounds, model-checked
	ci/orders.sh loom $(ARGS)

.PHONY: shuttle
shuttle: $(STAMPS)/venv  ## 20,000 random orders of five roles, one of which is killed
	ci/orders.sh shuttle $(ARGS)

# A million random orders of each model, and loom's models one preemption deeper than their bounds can be in CI.
.PHONY: orders
orders: $(STAMPS)/venv  ## 1,000,000 random orders of each model, and loom's with 3 preemptions (hours)
	AGENT_SCHEDULES=1000000 ci/orders.sh shuttle $(ARGS)
	LOOM_MAX_PREEMPTIONS=3 ci/orders.sh loom --include-ignored $(ARGS)

# SHARE=2/7: the second seventh of them.
SHARE ?= 1/1
.PHONY: mutants
mutants: $(STAMPS)/venv  ## seed bugs into the shared memory: a test must catch each (ARGS="--only NAME")
	$(BIN)/python scripts/mutants.py --share $(SHARE) $(ARGS)

.PHONY: asan
asan: $(STAMPS)/venv  ## the tests of agent-shm, agent-wire and agent-metric with AddressSanitizer
	ci/asan.sh $(ARGS)

.PHONY: test-python
test-python: $(STAMPS)/extension $(STAMPS)/need-test $(STAMPS)/need-lint peers-test  ## pytest (ARGS="..." for its arguments)
	$(BIN)/python -m pytest $(ARGS)

# Runs on a quiet machine, then beside two busy loops.
RUNS ?= 10
BUSY ?= 5
.PHONY: test-repeat
test-repeat: $(STAMPS)/extension $(STAMPS)/need-test $(STAMPS)/need-lint peers-test  ## all tests RUNS times, then BUSY times
	@$(BIN)/python scripts/repeat.py --runs $(RUNS) --busy $(BUSY) --logs $(STAMPS)/repeat -- $(MAKE) --no-print-directory test

.PHONY: peers-%
peers-%:
	@scripts/peers.sh $*

.PHONY: check
check: $(STAMPS)/need-runtime $(STAMPS)/need-lint  ## format and lint, warnings as errors
	$(BIN)/ruff format --check $(PYTHON_CODE)
	$(BIN)/ruff check $(PYTHON_CODE)
	$(BIN)/mypy
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked --quiet -- -D warnings

.PHONY: format
format: $(STAMPS)/need-lint  ## rewrite the sources in the house format
	$(BIN)/ruff format $(PYTHON_CODE)
	$(BIN)/ruff check --fix $(PYTHON_CODE)
	cargo fmt --all

.PHONY: ci
ci: check test loom shuttle callgrind  ## what CI runs

.PHONY: torture
torture: $(STAMPS)/extension $(STAMPS)/need-test  ## an hour of kills, stops, full and damaged memory (ARGS="kills --time 5m")
	$(BIN)/python -m agent torture --time 60m $(ARGS)

# --- measure --------------------------------------------------------------------------------------------------------

.PHONY: bench
bench: $(STAMPS)/extension $(STAMPS)/need-bench peers-bench  ## measure against rivals; writes benches/RESULTS.md
	$(BIN)/python benches/run.py $(ARGS)

.PHONY: million
million: $(STAMPS)/extension  ## a million connections on this machine; writes benches/MILLION.md (10 minutes)
	$(BIN)/python benches/million.py $(ARGS)

.PHONY: callgrind
callgrind: $(STAMPS)/extension peers-callgrind  ## instruction counts of the hot calls against their budgets
	$(BIN)/python benches/callgrind.py $(ARGS)

# --- clean ----------------------------------------------------------------------------------------------------------

.PHONY: clean
clean:  ## remove everything that make has built
	rm -rf $(STAMPS) $(VENV) target python/agent/*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
