# Two commands are all a newcomer needs: `make demo` and `make test`.
# Both make the virtual environment first; nothing is installed outside of it.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
LOCK   := requirements/development.txt
UV     := $(BIN)/uv --system-certs pip
COMPILE = $(UV) compile --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock"
# Prints what a command says only if it fails.
QUIETLY = sh -c 'said=$$("$$@" 2>&1) || { echo "$$said"; exit 1; }' --
# Finds imports of packages that are only in extras other than the named ones.
UNDECLARED = $(BIN)/deptry --ignore DEP002 --optional-dependencies-dev-groups

# A program that may keep what it has compiled starts in a third of the time.
unexport PYTHONDONTWRITEBYTECODE

# More options for pytest, such as OPTIONS="-k breaker".
OPTIONS ?=
# Unit tests compute, and have a process for each core. The others wait for programs most of the time.
PYTEST = $(BIN)/pytest --quiet --dist worksteal --numprocesses

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast unit coverage check types lint guard campaign endurance retries calibrate misbehaviour
.PHONY: history awaiting dead-man executor-load bench budget bench-growth bench-breaker bench-transport fuzz mutants docs site
.PHONY: wheel format lock upgrade clean

help:
	@echo "make demo      set up, then send fault plans through the whole system"
	@echo "make test      set up, then lint, type-check and run every test"
	@echo "make test-fast  the same with only the unit tests, on one version of Redis: 1 minute"
	@echo "make coverage  how much of the product the unit tests run, within a bound"
	@echo "make check     lint and type-check only"
	@echo "make campaign  2,000 plans while workers, Redis and the Executor are killed at random"
	@echo "make dead-man  20 times everything that could end a fault is killed at once, with traffic: 12 minutes"
	@echo "make executor-load  what the reference Executor does with 1,000 faults at once"
	@echo "make calibrate  40 plans through Envoy with real traffic: what was observed, next to what was counted"
	@echo "make misbehaviour  200 plans and an Executor that does something wrong with each"
	@echo "make endurance  how long a killed worker or Redis delays plans, and what idle and small workers do: 2 minutes"
	@echo "make awaiting  what 1,000 plans awaited in one asyncio process cost: connections, blocks of its loop, memory"
	@echo "make retries   how late retries begin, and what 6,000 of them leave in a worker's memory"
	@echo "make history   how fast the first page of 100,000 plans is, and what their index costs"
	@echo "make bench     side by side with other queues and durable engines: 11 minutes, writes docs/performance.md"
	@echo "make bench-growth  what more plans in flight, more workers and larger observations cost: 9 minutes"
	@echo "make bench-breaker  the circuit breaker side by side with two others"
	@echo "make bench-transport  what a call to an Executor costs, next to requests.Session"
	@echo "make budget    what each part of a plan costs a worker in processor time: 3 minutes, writes docs/performance.md"
	@echo "make guard     what a plan costs in round trips, calls and messages, within bounds"
	@echo "make fuzz      100,000 malformed answers"
	@echo "make mutants   small changes of ledger, state machine and breaker: tests must notice 90 %, and each survivor needs a reason"
	@echo "make docs      write again what is made from code: openapi.yaml, errors, settings, commands, pictures"
	@echo "make site      the pages in docs/ as a site: open site/index.html"
	@echo "make wheel     build wheel and source package into dist/, and check both"
	@echo "make format    format the code"
	@echo "make lock      write requirements/ again after a change of pyproject.toml"
	@echo "make upgrade   the same with the newest version of everything"
	@echo "make clean     remove the virtual environment and caches"

# requirements/ holds every version that was tested, with its hash; nothing else is installed.
$(VENV)/.ready: pyproject.toml requirements/uv.txt $(LOCK)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "setting up $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/uv.txt
	@$(UV) sync --quiet --python $(BIN)/python --require-hashes --no-build $(LOCK)
	@$(UV) install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

# Both write requirements/ again. `lock` changes only what pyproject.toml asks for; `upgrade` takes the newest versions.
lock upgrade: $(VENV)/.ready
	@$(COMPILE) --group installer --output-file requirements/uv.txt
	@$(COMPILE) pyproject.toml --all-extras --group build --output-file requirements/development.txt
	@$(COMPILE) pyproject.toml --extra executor --extra flower --extra otel --group build \
	  --constraint requirements/development.txt --output-file requirements/image.txt
	@$(COMPILE) pyproject.toml --all-extras --group build --resolution lowest-direct --upgrade --output-file .ci/lowest.txt

upgrade: COMPILE += --upgrade

demo: $(VENV)/.ready
	@$(BIN)/dispatcher demo

test: check
	@$(PYTEST) 6 $(OPTIONS)

test-fast: check
	@$(PYTEST) auto --one-server $(OPTIONS) tests/unit

unit: $(VENV)/.compiled
	@$(PYTEST) auto $(OPTIONS) tests/unit

# Of lines and branches, in this process and those that tests start.
coverage: $(VENV)/.compiled
	@rm -f .coverage .coverage.*
	@$(BIN)/coverage run -m pytest --quiet --dist worksteal --numprocesses auto $(OPTIONS) tests/unit
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

check: $(VENV)/.ready
	@$(MAKE) --no-print-directory --jobs=2 types lint

types: $(VENV)/.ready
	@$(BIN)/mypy --no-error-summary

lint: $(VENV)/.compiled
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(QUIETLY) $(BIN)/lint-imports --no-logo
	@$(QUIETLY) $(BIN)/deptry .
	@$(QUIETLY) $(UNDECLARED) executor,flower,examples,bench,docs,dev dispatcher
	@$(QUIETLY) $(UNDECLARED) executor,flower,otel,embedded,data,all,examples,bench,docs,dev workers conformance
	@$(QUIETLY) $(UNDECLARED) flower,otel,embedded,data,all,examples,bench,docs,dev executor

# All test modules are loaded once, or each process of pytest would compile them and what they import.
$(VENV)/.compiled: $(VENV)/.ready
	@$(QUIETLY) $(BIN)/pytest --collect-only --quiet
	@touch $@

campaign: $(VENV)/.ready
	@$(BIN)/python -m campaigns.chaos --plans 2000 --peer
	@$(BIN)/python -m campaigns.chaos --plans 2000

dead-man: $(VENV)/.ready
	@$(BIN)/python -m campaigns.dead_man

executor-load: $(VENV)/.ready
	@$(BIN)/python -m benchmarks.loads.executor_load

calibrate: $(VENV)/.ready
	@$(BIN)/python -m campaigns.calibration --slow-data-plane
	@$(BIN)/python -m campaigns.calibration

misbehaviour: $(VENV)/.ready
	@$(BIN)/python -m campaigns.misbehaviour

endurance: $(VENV)/.ready
	@$(BIN)/python -m benchmarks.queues --only endurance

history: $(VENV)/.ready
	@$(BIN)/python -m benchmarks.loads.history

awaiting: $(VENV)/.ready
	@$(BIN)/python -m benchmarks.loads.awaiting

retries: $(VENV)/.ready
	@$(BIN)/python -m benchmarks.loads.retries

bench: $(VENV)/.ready
	@$(BIN)/python -m benchmarks.queues

bench-growth: $(VENV)/.ready
	@$(BIN)/python -m benchmarks.queues --only growth

bench-breaker: $(VENV)/.ready
	@$(BIN)/python -m benchmarks.breaker

guard: $(VENV)/.ready
	@$(BIN)/python -m benchmarks.guard

fuzz: $(VENV)/.ready
	@PYTHONPATH=tests $(BIN)/python -m fuzz.responses

# Only one part: make mutants PARTS=breaker. To continue such a run: make mutants PARTS="--keep breaker"
mutants: $(VENV)/.ready
	@PYTHONHASHSEED=0 PYTHONPATH=$(CURDIR)/tests $(BIN)/python -m mutation.score $(PARTS)

budget: $(VENV)/.ready
	@$(BIN)/python -m benchmarks.budget --publish

bench-transport: $(VENV)/.ready
	@$(BIN)/python -m benchmarks.transport

docs: $(VENV)/.ready
	@$(BIN)/python -m executor.openapi > executor/openapi.yaml
	@$(BIN)/python -m dispatcher.cli.error_reference > docs/errors.md
	@$(BIN)/python -m dispatcher.cli.column_reference > docs/columns.md
	@$(BIN)/python -m dispatcher.settings.reference > docs/settings.md
	@$(BIN)/python -m docs.tools.command_reference > docs/cli.md
	@$(BIN)/python -m docs.tools.check_reference > docs/conformance.md
	@$(BIN)/python -m docs.tools.pictures

# Warnings are errors. The theme's own warning is about another product, so it is switched off.
site: $(VENV)/.ready
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "site/index.html"

wheel: $(VENV)/.ready
	@rm -rf dist
	@$(QUIETLY) $(BIN)/python -m hatchling build
	@$(QUIETLY) $(BIN)/twine check --strict dist/*
	@$(QUIETLY) $(BIN)/check-wheel-contents dist/*.whl
	@ls dist

format: $(VENV)/.ready
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format --quiet .

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
