# Needs make and a Python of 3.11 or later; everything else goes into .venv.
# PYTHON=/path/to/python picks another Python, VENV=… another folder.

VENV ?= .venv
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11 python3.14 python; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$name; break; }; \
	done)
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
SOURCES := core api operator tests tools

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
KIND_NAME ?= shardcluster
E2E_WORKERS ?= 3
TIER ?= model
ROUNDS ?= $(if $(filter model,$(TIER)),1000)
SEED ?= $(if $(filter model,$(TIER)),0)
OPERATOR_IMAGE := shardcluster-operator:$(VERSION)
GATEWAY_IMAGE := shardcluster-api:$(VERSION)

RUN_READY := $(VENV)/.ready-run
DEV_READY := $(VENV)/.ready-dev

.DEFAULT_GOAL := help
.PHONY: help run test compose-test browser-test js-test promtool-test e2e kind checks format bench bench-gateway bench-k8s \
	fuzz chaos soak generate lock lock-check sbom setup clean
.DELETE_ON_ERROR:

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

run: $(RUN_READY) ## start a store: six nodes, the HTTP API on 127.0.0.1:8080; Ctrl-C ends it
	@$(BIN)/shardctl up

test: $(DEV_READY) ## unit tests, scenarios, and the tests against real Valkey processes
	@$(BIN)/pytest -n auto tests/unit tests/scenarios tests/chaos --cov --cov-report=term
	@$(BIN)/pytest -n 4 --dist worksteal tests/cluster
	@docker version >/dev/null 2>&1 \
		&& echo "The Compose tests are apart from these: make compose-test" \
		|| echo "Not run here: the Compose tests (no Docker engine); make compose-test runs them where there is one."
	@echo "Not run here: the dashboard's tests (make browser-test, needs Chromium), the npm client's (make js-test, needs Node), the alert rules' (make promtool-test), the end-to-end tests (make e2e, needs a Kubernetes)."

compose-test: $(DEV_READY) ## build the images and test them under Docker Compose
	@$(BIN)/pytest tests/compose

browser-test: $(DEV_READY) ## test the dashboard in headless Chromium (CHROMIUM=/path/to/it)
	@$(BIN)/pytest -n 2 --timeout 300 tests/browser

js-test: $(DEV_READY) ## test the gateway with the npm client @upstash/redis (needs node and npm)
	@$(BIN)/pytest tests/js

promtool-test: $(DEV_READY) ## test the alert rules with promtool
	@$(BIN)/pytest tests/promtool

fuzz: $(DEV_READY) ## a million wrong requests and replies; the seed is printed
	@$(BIN)/python -m tests.fuzz

chaos: $(DEV_READY) ## rounds of faults on a simulated cluster (ROUNDS=1000 SEED=0), real processes (TIER=process SECONDS=300) or Kubernetes (TIER=k8s)
	@$(BIN)/python -m tests.chaos --tier $(TIER) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SEED),--seed $(SEED)) \
		$(if $(SECONDS),--seconds $(SECONDS)) $(if $(GO_ON),--go-on)

soak: $(DEV_READY) ## half an hour of load with a fault every 20 s (SECONDS=1800); build/soak.json and .svg (needs wrk)
	@$(BIN)/python -m tests.chaos.soak $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED))

kind: ## make a kind cluster, build and load the images, install the operator (needs kind, docker, kubectl)
	kind create cluster --name $(KIND_NAME) --config deploy/kind.yaml
	docker build --target operator --tag $(OPERATOR_IMAGE) .
	docker build --target api --tag $(GATEWAY_IMAGE) .
	kind load docker-image --name $(KIND_NAME) $(OPERATOR_IMAGE) $(GATEWAY_IMAGE)
	kubectl --context kind-$(KIND_NAME) apply -k deploy
	kubectl --context kind-$(KIND_NAME) -n shardcluster-system rollout status deploy/shardcluster-operator --timeout=120s
	@echo "Now: kubectl apply -f deploy/samples/shardcluster.yaml   (away again: kind delete cluster --name $(KIND_NAME))"

e2e: $(DEV_READY) ## end-to-end tests on the Kubernetes that KUBECONFIG names (kind-…, localkube…)
	@$(BIN)/pytest tests/e2e -m "not serial" -n $(E2E_WORKERS) --dist worksteal --timeout 900
	@$(BIN)/pytest tests/e2e -m serial --timeout 900

bench-k8s: $(DEV_READY) ## measure on that Kubernetes; writes build/bench-k8s.json
	@$(BIN)/python -m tests.bench.k8s

checks: $(DEV_READY) lock-check ## format, lint, types, import contracts, tidy rules, links, drift
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/mypy $(SOURCES)
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/pytest -q tests/unit/test_tidy.py
	@$(BIN)/python tools/check_docs_links.py
	@$(BIN)/python tools/generate.py --check

format: $(DEV_READY) ## put the source into its format, mend what ruff can mend
	@$(BIN)/ruff format $(SOURCES)
	@$(BIN)/ruff check --fix $(SOURCES)

bench: $(DEV_READY) ## measure; prints a table, writes build/bench.json, fails when a line is missed
	@$(BIN)/python -m tests.bench

bench-gateway: $(DEV_READY) ## measure the gateway beside Webdis and Flask (needs wrk, webdis); build/bench-gateway.json
	@$(BIN)/python -m tests.bench.gateway

sbom: $(DEV_READY) ## what the images contain, with licences: build/sbom.json (CycloneDX)
	@$(BIN)/python -m tools.sbom

generate: $(DEV_READY) ## write the files that are made from the source
	@$(BIN)/python tools/generate.py

lock: $(DEV_READY) ## pin the newest allowed versions anew, with hashes
	@$(BIN)/python tools/lock.py

lock-check: $(DEV_READY)
	@$(BIN)/python tools/lock.py --check

setup: $(DEV_READY) ## only install what the targets above need

clean: ## remove build products and caches (not .venv, not the data in .shardcluster)
	rm -rf build dist .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "ShardCluster needs Python 3.11 or later: none was found on PATH." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "The virtual environment could not be made; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

# The project itself goes in with the locked build backend, so nothing unpinned is fetched.
$(RUN_READY): requirements/run.txt pyproject.toml tools/fetch_server.py | $(BIN)/python
	@echo "Installing into $(VENV) (once) …"
	@$(PIP) install --quiet --require-hashes -r requirements/run.txt
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@$(BIN)/python tools/fetch_server.py
	@touch $@

$(DEV_READY): requirements/dev.txt $(RUN_READY)
	@echo "Installing the tools for tests and checks into $(VENV) (once) …"
	@$(PIP) install --quiet --require-hashes -r requirements/dev.txt
	@touch $@
