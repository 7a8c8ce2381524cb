# Two commands matter: `make serve` (set up and serve) and `make test` (set up and check everything).

PYTHON ?= python3
SERVE_VENV := .venv-serve
VENV := .venv
PIP_FLAGS := --quiet --disable-pip-version-check
# Torch's CPU build: on a machine whose index serves the CUDA build by default, set
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
TEST_EXTRAS := serving,triton,otel,training,test

.PHONY: help setup serve test lint types imports unit packaging proto monitoring e2e-long clean

help: ## what there is
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

$(SERVE_VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(SERVE_VENV)
	$(SERVE_VENV)/bin/pip install $(PIP_FLAGS) --constraint constraints.txt --editable '.[serving]'
	touch $@

$(VENV)/.ready: pyproject.toml constraints.txt tests/system_packages.sh tests/ops/tools.sh
	sh tests/system_packages.sh
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install $(PIP_FLAGS) --constraint constraints.txt --editable '.[$(TEST_EXTRAS)]'
	PYTHON=$(VENV)/bin/python sh tests/ops/tools.sh .cache/ops
	touch $@

setup: $(VENV)/.ready ## the development environment in .venv

serve: $(SERVE_VENV)/.ready ## gRPC on 50051, REST on 8090, admin on 8091, the default archive (ARGS="--help" for flags)
	$(SERVE_VENV)/bin/ferserve serve $(ARGS)

test: lint types imports unit packaging ## everything that must be green

lint: $(VENV)/.ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/python proto/generate.py --lint

types: $(VENV)/.ready
	$(VENV)/bin/mypy

imports: $(VENV)/.ready
	$(VENV)/bin/lint-imports

unit: $(VENV)/.ready ## unit, property, golden and integration tests
	$(VENV)/bin/pytest -q -m 'not packaging and not long'

packaging: $(VENV)/.ready ## builds the wheel, installs and serves it in an empty environment without torch
	$(VENV)/bin/pytest -q -m packaging

e2e-long: $(VENV)/.ready ## the long tests, a real local Ray among them
	$(VENV)/bin/pip install $(PIP_FLAGS) --constraint constraints.txt --editable '.[$(TEST_EXTRAS),ray]'
	PYTHON=$(VENV)/bin/python sh tests/ops/tools.sh .cache/ops long
	$(VENV)/bin/pytest -q -m long

proto: $(VENV)/.ready ## regenerate the code of the .proto files
	$(VENV)/bin/python proto/generate.py

monitoring: $(VENV)/.ready ## write the dashboards and Prometheus rules of k8s/components/monitoring anew
	$(VENV)/bin/python k8s/generate

clean: ## remove both environments and every cache
	rm -rf $(SERVE_VENV) $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .cache
