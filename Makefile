# `make run` and `make test` need python3, python3-venv, make and git, and npm for all tests; `make e2e` root, and it
# installs the rest.

PYTHON ?= python3
PIP := .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes

.PHONY: help run test lint format unit e2e bench kills powercuts fulldisk soak faildisk

help:
	@echo "make run      the daemon on 127.0.0.1:5000, with config/cacheproxy.toml and its state in ./var"
	@echo "make test     the tests that need nothing but this folder"
	@echo "make lint     ruff, mypy, who imports whom"
	@echo "make format   rewrite the code as lint wants it"
	@echo "make unit     how much the systemd unit may do (needs systemd-analyze)"
	@echo "make e2e      real clients against real registries (as root; installs them)"
	@echo "make kills    kill -9 under load and at storage calls (CYCLES=200 is the long run, with all calls)"
	@echo "make powercuts  power cuts under load, on ext4 and xfs (as root; CYCLES=100)"
	@echo "make fulldisk  disks that are full from some storage call on (as root; CYCLES=100)"
	@echo "make soak     pushes, pulls and deletions beside the collector, with kills (SECONDS=60 KILLS=20)"
	@echo "make faildisk  storage calls that fail, one at a time (CYCLES=100: each of them)"
	@echo "make bench    beside other caches, on this machine"

run: .venv/runtime
	.venv/bin/python -m cacheproxy serve --config config/cacheproxy.toml

test: .venv/development
	@mkdir -p var; marks=; \
	if [ "$$(id -u)" != 0 ]; then echo "not root: without the tests that mount"; marks="not root"; fi; \
	if command -v npm >/dev/null; then $(MAKE) --no-print-directory .tools/azurite/installed; \
	else echo "no npm: without the tests on Azurite"; marks="$${marks:+$$marks and }not azurite"; fi && \
	.venv/bin/python -m pytest --junitxml=var/test.xml --ignore=tests/e2e --ignore=tests/crash -m "$$marks"

lint: .venv/development
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/python -m pytest -q tests/test_arrows.py

format: .venv/development
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

# 1.5 of 10 at most; a unit without hardening has 9.6. The program need not be installed to be verified.
unit:
	systemd-analyze security --offline=true --threshold=15 systemd/cacheproxy.service >/dev/null
	mkdir -p var
	sed 's|^ExecStart=[^ ]*|ExecStart=/bin/true|' systemd/cacheproxy.service >var/cacheproxy.service
	cp systemd/cacheproxy.socket var/
	systemd-analyze verify var/cacheproxy.service var/cacheproxy.socket

e2e: .venv/development
	tests/e2e/install
	mkdir -p var
	.venv/bin/python -m pytest -m e2e --junitxml=var/e2e.xml tests/e2e

# How many crashes, and which: the seed of a failure repeats what clients and crashes did.
CYCLES ?=
SEED ?=
CRASH := .venv/bin/python -m pytest -q -s
export CYCLES SEED

kills: .venv/development
	$(CRASH) tests/crash/test_kills.py tests/crash/test_points.py tests/crash/test_push_points.py

# With mounts of its own: another mount namespace that begins meanwhile would keep a file system in use.
powercuts: .venv/development
	unshare --mount $(CRASH) tests/crash/test_powercuts.py

fulldisk: .venv/development
	$(CRASH) tests/crash/test_full_disk.py -k any_storage_call
	.venv/bin/python -m pytest -q tests/crash/test_full_disk.py tests/faults/test_full_disk.py -k "not any_storage_call"

# How long, and how many kills, on each kind of store.
SECONDS ?=
KILLS ?=
export SECONDS KILLS

soak: .venv/development
	$(CRASH) tests/crash/test_soak.py

faildisk: .venv/development
	$(CRASH) tests/crash/test_failing_disk.py

bench: .venv/development
	.venv/bin/python -m bench

# An emulator of Azure's blobs, for tests: from a lock with hashes, and without the scripts of its packages.
.tools/azurite/installed: tests/azurite/package.json tests/azurite/package-lock.json
	mkdir -p .tools/azurite
	cp tests/azurite/package.json tests/azurite/package-lock.json .tools/azurite/
	cd .tools/azurite && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	touch $@

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/runtime: requirements.lock | .venv/bin/python
	$(PIP) -r requirements.lock
	touch $@

# The development lock holds what the runtime lock holds, and more.
.venv/development: requirements-dev.lock | .venv/bin/python
	$(PIP) -r requirements-dev.lock
	touch $@ .venv/runtime
