# Two commands are all a newcomer needs: `make demo` and `make test`.
# Both make the virtual environment first; nothing is installed outside of it.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
EXTRAS := executor,flower,otel,embedded,examples,bench,dev

.DEFAULT_GOAL := help
.PHONY: help demo test check guard campaign in-flight bench bench-growth bench-breaker bench-transport fuzz
.PHONY: docs format clean

help:
	@echo "make demo      set up, then send fault plans through the whole system"
	@echo "make test      set up, then lint, type-check and run every test"
	@echo "make check     lint and type-check only"
	@echo "make campaign  2,000 plans while workers, Redis and the Executor are killed at random"
	@echo "make in-flight  what many plans in flight cost, and how long a killed worker holds them up"
	@echo "make bench     side by side with Taskiq, Dramatiq and plain Celery: 20 minutes, writes docs/performance.md"
	@echo "make bench-growth  what more plans in flight, more workers and larger observations cost: 12 minutes"
	@echo "make bench-breaker  the circuit breaker side by side with two others"
	@echo "make bench-transport  what a call to an Executor costs, beside requests.Session"
	@echo "make guard     what a plan costs in round trips, calls and messages, within bounds"
	@echo "make fuzz      100,000 answers that are none"
	@echo "make docs      write anew what is made from code: executor/openapi.yaml, docs/errors.md"
	@echo "make format    format the code"
	@echo "make clean     remove the virtual environment and caches"

$(VENV)/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "setting up $(VENV) ..."
	@if command -v uv >/dev/null 2>&1; then \
	  uv venv --quiet --allow-existing --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(VENV) \
	  && uv pip install --quiet --python $(BIN)/python --editable '.[$(EXTRAS)]'; \
	else \
	  $(PYTHON) -m venv $(VENV) \
	  && $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS)]'; \
	fi
	@touch $@

demo: $(VENV)/.ready
	@$(BIN)/dispatcher demo

test: check
	@$(BIN)/pytest --quiet --numprocesses 2 --dist worksteal

check: $(VENV)/.ready
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo >/dev/null || $(BIN)/lint-imports --no-logo

campaign: $(VENV)/.ready
	@$(BIN)/python -m benchmarks.chaos_campaign --plans 2000 --peer
	@$(BIN)/python -m benchmarks.chaos_campaign --plans 2000

in-flight: $(VENV)/.ready
	@$(BIN)/python -m benchmarks.in_flight

bench: $(VENV)/.ready
	@$(BIN)/python -m benchmarks.queues

bench-growth: $(VENV)/.ready
	@$(BIN)/python -m benchmarks.growth

bench-breaker: $(VENV)/.ready
	@$(BIN)/python -m benchmarks.breaker

guard: $(VENV)/.ready
	@$(BIN)/python -m benchmarks.guard

fuzz: $(VENV)/.ready
	@PYTHONPATH=tests $(BIN)/python -m fuzz.responses

bench-transport: $(VENV)/.ready
	@$(BIN)/python -m benchmarks.transport

docs: $(VENV)/.ready
	@$(BIN)/python -m executor.openapi > executor/openapi.yaml
	@$(BIN)/python -m dispatcher.error_reference > docs/errors.md

format: $(VENV)/.ready
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format --quiet .

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
