# Two commands for a newcomer: `make demo` and `make test`. Everything goes to .venv; nothing else is touched.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= demo
BASE ?= origin/main
PROCESSORS := $(shell nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: help demo fast-transformers axe test check format lint types layers pytest
.PHONY: fuzz kills benchmark-pipelines benchmarks gate gate-experiment proxies clean

help:
	@echo "make demo     set up .venv, run the smoke suite, build its report and say where it is"
	@echo "make fast-transformers"
	@echo "              install the attention backend that the thesis used; it is built once, which takes minutes"
	@echo "make axe      install the accessibility checker that the browser tests use (needs npm)"
	@echo "make test     set up what tests need and run all checks and tests"
	@echo "make check    the same without setting up: format, lint, types, layers, tests"
	@echo "make format   format the code"
	@echo "make fuzz     try 10,000 damaged images, configurations and runs; FUZZ_INPUTS=number (make test tries 1,000)"
	@echo "make benchmark-pipelines"
	@echo "              compare the fast pipeline with the machine and with the thesis's; 25 minutes of a quiet machine;"
	@echo "              real images by BENCH_TEST_DATA, after an interruption PIPELINES=--resume"
	@echo "make benchmarks"
	@echo "              time every attention kernel by pytest-benchmark; BENCHMARKS=options"
	@echo "make gate BASE=origin/main"
	@echo "              is this checkout's attention slower than that commit's? both take turns on this machine;"
	@echo "              make ends with 2 where it is (it prints Error 3), or where they are not comparable (Error 4)"
	@echo "make gate-experiment"
	@echo "              how often the gate is wrong here: 100 comparisons with itself, 100 with a planted slowdown"
	@echo "make proxies  record anew what the attentions count as doing, after a change that means to alter it"
	@echo "make kills    kill a run at fifty random moments, resume it each time, compare what it computed; half an hour"
	@echo "make clean    remove .venv and the demo"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

KERNEL := $(wildcard models/attention/linear_kernel.[ch])

$(VENV)/.bench: pyproject.toml constraints.txt $(KERNEL) | $(BIN)/python
	$(PIP) --editable .
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt $(KERNEL) | $(BIN)/python
	$(PIP) --editable '.[test,tensorboard,traceinsight,slurm]'
	@touch $@ $(VENV)/.bench

demo: $(VENV)/.bench
	rm -rf $(DEMO)
	$(BIN)/bench run --suite smoke --out $(DEMO)
	$(BIN)/bench report $(DEMO)

$(VENV)/.fast-transformers: constraints.txt .ci/fast-transformers | $(VENV)/.bench
	.ci/fast-transformers $(abspath $(BIN))/python
	@touch $@

fast-transformers: $(VENV)/.fast-transformers

AXE := tests/reports/node_modules/axe-core/axe.min.js

$(AXE): tests/reports/package-lock.json
	@command -v npm >/dev/null || { echo "npm is needed: it brings axe-core, by which the report's page is tested" >&2; exit 1; }
	npm ci --prefix tests/reports --ignore-scripts --no-audit --no-fund --silent
	@touch $@

axe: $(AXE)

test: $(VENV)/.test $(VENV)/.fast-transformers $(AXE)
	$(MAKE) check

check: lint types layers pytest

format:
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint:
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types:
	$(BIN)/mypy

layers:
	$(BIN)/lint-imports

# Tests that time something run one by one, with nothing beside them; all others on all processors.
pytest:
	failed=0; \
	$(BIN)/python -m pytest -m "not alone" --numprocesses $(PROCESSORS) --dist worksteal $(PYTEST) $(REPORTS:%=--junit-xml=%/beside.xml) || failed=1; \
	$(BIN)/python -m pytest -m alone $(PYTEST) $(REPORTS:%=--junit-xml=%/alone.xml) || failed=1; \
	exit $$failed

FUZZ_INPUTS ?= 10000

fuzz:
	FUZZ_INPUTS=$(FUZZ_INPUTS) $(BIN)/python -m pytest -m fuzz --timeout 0 --hypothesis-show-statistics tests/harness/test_fuzz.py tests/reports/test_fuzz.py

benchmark-pipelines:
	$(BIN)/python -m tests.benchmarks.pipelines --out .benchmarks/pipelines.json --page .benchmarks/pipelines.md $(PIPELINES)

benchmarks:
	$(BIN)/python -m pytest tests/benchmarks/bench_kernels.py -o python_functions='bench_*' --benchmark-only $(BENCHMARKS)

gate: $(VENV)/.bench
	@git worktree remove --force .gate-base 2>/dev/null || true
	trap 'git worktree remove --force .gate-base' EXIT; trap 'exit 130' INT; trap 'exit 143' TERM; \
	git worktree add --detach --force .gate-base $(BASE) && \
	(cd .gate-base && $(abspath $(BIN))/python -c "from setuptools import setup; setup()" --quiet build_ext --inplace) && \
	$(BIN)/python -m tests.benchmarks.gate .gate-base .

gate-experiment:
	$(BIN)/python -m tests.benchmarks.experiment

kills:
	BENCH_KILLS=50 $(BIN)/python -m pytest tests/harness/test_kills.py -s

proxies:
	$(BIN)/python -m tests.benchmarks.proxies

clean:
	rm -rf $(VENV) $(DEMO) tests/reports/node_modules
