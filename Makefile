# What can be done here.  Each target makes the environment it needs first (infra/bootstrap.sh): Python 3.11 or newer and
# make are all that has to be there.  PYTHON=/path/to/python3 picks the Python, ARGS='...' is passed on.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test lint fmt bench soak lock clean

ARGS ?=
PYTHON ?=
export PYTHON

bin := .venv/bin

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## the whole job on an embedded broker, in about a minute
	@sh infra/bootstrap.sh runtime
	@$(bin)/stillwatch demo $(ARGS)

test: ## all tests but the soak, in a process more than there are cores (ARGS='-n 0': in one)
	@sh infra/bootstrap.sh dev
	@$(bin)/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(ARGS)

lint: ## ruff and mypy, changing nothing
	@sh infra/bootstrap.sh dev
	$(bin)/ruff check
	$(bin)/ruff format --check
	$(bin)/mypy

fmt: ## format, and fix what ruff can fix
	@sh infra/bootstrap.sh dev
	$(bin)/ruff check --fix-only
	$(bin)/ruff format

bench: ## measure against the programs named in docs/benchmarks.md
	@sh infra/bootstrap.sh bench
	@.venv-bench/bin/python -m tests.bench $(ARGS)

soak: ## the tests that run for many minutes
	@sh infra/bootstrap.sh dev
	@$(bin)/python -m pytest -m soak $(ARGS)

# One version per package for every Python and platform.  --no-emit-*: a lock must not name where it was made.
lock_command := uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --fork-strategy fewest \
	--generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' \
	--group build --extra postgres --extra demo

lock: ## renew the lock files (needs uv; ARGS=--upgrade takes newer versions)
	$(lock_command) $(ARGS) --output-file requirements.lock
	$(lock_command) $(ARGS) --extra dev --constraint requirements.lock --output-file requirements-dev.lock
	$(lock_command) $(ARGS) --extra dev --extra bench --output-file requirements-bench.lock

clean: ## remove the environments, caches and build products; lakes stay
	rm -rf .venv .venv-bench build dist stillwatch.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find pipeline jobs schemas tests infra -name __pycache__ -prune -exec rm -rf {} +
