# PYTHON=python3.12 chooses another Python. ARGS="..." is passed to pytest or to the benchmark.

PYTHON ?= python3
ARGS ?=
BIN = .venv/bin
LOCK = $(BIN)/uv pip compile --generate-hashes --python-version 3.11 --python-platform linux --no-header --quiet
export PYTHON
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# The tests start hundreds of processes; without the files that this forbids each would compile every module.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL = help
.PHONY: help install run test test-all test-packages check fmt bench broker plugin demo screenshots dashboard secrets lock audit deb images clean
.NOTPARALLEL:

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 13

install: .venv/.installed ## build .venv, for running and for developing

run: .venv/.runtime ## serve the API on 127.0.0.1:8080 and brokers on 127.0.0.1:8070, with SQLite in ./data
	@exec $(BIN)/authsvc serve

test: test-packages .venv/.installed ## run the tests in some minutes, or some of them: make test ARGS="tests/rules -k wildcard"
	$(BIN)/pytest -n auto --maxprocesses 8 --dist worksteal -m 'not slow' $(ARGS)

test-all: test-packages .venv/.installed ## run all tests: also floods, storms, long deadlines, and storage on PostgreSQL
	$(BIN)/pytest -n auto --maxprocesses 8 --dist worksteal $(ARGS)

check: .venv/.installed ## run the linters and the type checker
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

fmt: .venv/.installed ## format the code and apply the linter's fixes
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: test-packages .venv/.installed ## measure all figures and write bench/RESULTS.md, or some: make bench ARGS="storm --quick"
	$(BIN)/python -m bench $(ARGS)

broker: ## run a Mosquitto on port 1883 with authsvc's plugin, for the authsvc of `make run`
	@deploy/apt-packages.sh broker
	@$(MAKE) --no-print-directory plugin
	@PATH="$$PATH:/usr/sbin" exec mosquitto -c deploy/mosquitto/try.conf

plugin: ## build authsvc's plugin for Mosquitto, deploy/mosquitto/plugin/mosquitto_authsvc.so
	@deploy/apt-packages.sh plugin
	@$(MAKE) --no-print-directory -C deploy/mosquitto/plugin

demo: test-packages .venv/.installed ## show how an unknown device registers, in a terminal, in a minute
	@$(BIN)/python -m tests.demo

screenshots: test-packages .venv/.installed ## take the screenshots in docs/screenshots/
	@$(BIN)/python -m tests.screenshots

dashboard: test-packages .venv/.installed ## draw docs/dashboard.svg from a real Prometheus and a real service, in two minutes
	@$(BIN)/python -m tests.dashboard_picture

secrets: ## create the secrets for compose.yaml in deploy/secrets/
	@deploy/make-secrets.sh

lock: .venv/.release ## write the newest versions that setup.cfg allows to requirements.lock and requirements-build.lock
	$(LOCK) setup.cfg --upgrade --output-file requirements.lock
	sed -n 's/^requires = \["\(.*\)"\]/\1/p' pyproject.toml | $(LOCK) - --upgrade --output-file requirements-build.lock

audit: .venv/.release ## look up known vulnerabilities of the packages in requirements.lock
	@$(BIN)/python deploy/audit.py $(BIN)/pip-audit requirements.lock

deb: ## build a Debian package in build/; needs network
	@deploy/debian/build.sh

images: ## write the digests of the base images into Dockerfile and compose.yaml; needs docker and network
	@deploy/pin-images.sh

clean: ## remove everything generated except ./data and deploy/secrets/
	rm -rf .venv build ./*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis tests/.build
	@$(MAKE) --no-print-directory -C deploy/mosquitto/plugin clean
	find authsvc registry tests bench -name __pycache__ -exec rm -rf {} +

test-packages:
	@deploy/apt-packages.sh test

# These files mark that .venv matches setup.cfg, so nothing is installed again without a change.
.venv/.runtime: setup.cfg pyproject.toml
	@deploy/apt-packages.sh run
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("authsvc needs Python 3.11 or newer, this is %d.%d; choose another with: make PYTHON=..." % sys.version_info[:2])'
	@echo "Setting up .venv"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --editable .
	@touch $@

.venv/.installed: .venv/.runtime
	@echo "Adding the development tools to .venv"
	@$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@

.venv/.release: .venv/.runtime
	@echo "Adding the release tools to .venv"
	@$(BIN)/pip install --quiet --editable '.[release]'
	@touch $@
