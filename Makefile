# Everything a newcomer needs: `make demo`, then `make test`. Nothing is installed outside `.venv`,
# except that `make test` as root on Debian installs the packages that its tests need.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
T ?= tests

.PHONY: help wrappers demo test test-host check format lint types unit shellcheck bench crash races docs newest wheel deb lock clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# What the lock names and nothing else: no index is asked for a dependency, and nothing is built but this project,
# with the tools that the lock names.
PIP_INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --no-deps
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV) || { echo "python3-venv is needed (Debian: apt-get install python3-venv)" >&2; exit 1; }
	$(PIP_INSTALL) --require-hashes --only-binary :all: -r requirements.lock
	$(PIP_INSTALL) --no-build-isolation -e .
	$(BIN)/pip check --quiet --disable-pip-version-check
	@touch $@

demo: $(STAMP) ## the main job for real, on a temporary directory: held, denied once, approved once, run
	@PATH="$(CURDIR)/$(BIN):$$PATH" docs/tutorial/demo.sh

test: $(STAMP) ## every test that this machine can run
	@tests/support/prepare-host
	$(BIN)/ruff format --check .
	$(MAKE) --no-print-directory lint types
	$(BIN)/pytest -n 2 --dist worksteal --cov --cov-report= -m "not serial" $(T)
	$(BIN)/pytest -p no:cacheprovider -m "serial and not host" --cov --cov-append --cov-report= $(T)
	$(BIN)/python -m tests.support.coverage_floor
	@[[ "$(T)" != tests ]] || $(MAKE) --no-print-directory test-host

test-host: $(STAMP) ## the installed agent on a booted Debian: root on Debian only, others are told why not
	@tests/support/prepare-host
	$(BIN)/pytest -p no:cacheprovider -m host tests/host

check: $(STAMP) format lint types unit ## format, lint, types and unit tests; under two minutes on two quiet cores

format:
	$(BIN)/ruff format .

lint:
	$(BIN)/ruff check .
	@if command -v shellcheck >/dev/null; then $(MAKE) --no-print-directory shellcheck; else echo "shellcheck is not installed: shell scripts were not checked"; fi

shellcheck:
	shellcheck $(filter-out wrappers/parts,$(wildcard wrappers/*)) docs/tutorial/demo.sh tests/crash/git-wrapper tests/support/prepare-host .ci/run \
		systemd/deb/build systemd/deb/postinst systemd/deb/prerm systemd/deb/postrm

types:
	$(BIN)/mypy

unit:
	$(BIN)/pytest -q -n 2 -m "not slow and not serial" tests/unit tests/property tests/docs

bench: $(STAMP) ## speed against the bare command and against peers, as ratios of one run
	@tests/support/prepare-host bench
	$(BIN)/python -m tests.bench

KILLS ?= 1000
crash: $(STAMP) ## kill the agent KILLS times, restart it, and look for a broken promise
	$(BIN)/python -m tests.crash --kills $(KILLS)

RACES ?= 10000
races: $(STAMP) ## approve, deny, expire and cancel one request from four processes, RACES times
	$(BIN)/python -m tests.races --races $(RACES)

wrappers: $(STAMP) ## write the wrappers anew from wrappers/parts
	$(BIN)/python -m tests.support.wrapper_parts

docs: $(STAMP) ## write the reference pages anew from the code
	$(BIN)/python -m tests.support.reference_pages

NEWEST ?= python3.11 python3.12 python3.13 python3.14
newest: ## import everything, warnings as errors, with the newest releases that pyproject.toml admits, on each Python here
	@for python in $(NEWEST); do
		$$python -c '' 2>/dev/null || { echo "$$python is not here"; continue; }
		$$python -m venv --clear build/newest
		build/newest/bin/pip install --quiet --disable-pip-version-check --upgrade pip
		build/newest/bin/pip install --quiet --disable-pip-version-check '.[signal,notify,mcp]'
		build/newest/bin/pip check --quiet --disable-pip-version-check
		build/newest/bin/python -I -W error tests/support/import_all.py
	done

wheel: $(STAMP) ## the program as one file in dist/, for a host that installs requirements-server.lock
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --no-index --no-build-isolation --wheel-dir dist .
	@ls dist/*.whl

SUITES ?= bookworm trixie
deb: $(STAMP) ## Debian packages in dist/, one for each release of SUITES, built in its own root: root on Debian only
	@tests/support/prepare-host
	for suite in $(SUITES); do PYTHON=$(BIN)/python systemd/deb/build $$suite; done

# One resolution for every supported Python; extras kept, so that no pip asks an index for them anew.
# The server's lock holds the same releases, without the tools of development.
UPGRADE ?= --upgrade
RESOLVE := pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 --no-strip-extras \
	--generate-hashes --no-emit-index-url --no-header pyproject.toml
lock: ## resolve the dependencies anew into both locks, with hashes (UPGRADE= keeps the releases that still fit)
	$(PYTHON) -m venv --clear build/lock
	build/lock/bin/pip install --quiet --disable-pip-version-check uv
	build/lock/bin/uv $(RESOLVE) $(UPGRADE) --all-extras --output-file requirements.lock
	build/lock/bin/uv $(RESOLVE) --upgrade --constraints requirements.lock --no-annotate --extra signal --extra notify --output-file requirements-server.lock
	@sed -i "1i # Written by 'make lock': what is developed and tested with." requirements.lock
	@sed -i "1i # Written by 'make lock': what a host runs, the program itself left out." requirements-server.lock

clean: ## remove what the other targets made
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.* htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
