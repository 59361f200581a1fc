# Everything a developer or an operator of one machine types. Needs python3 >= 3.11 with venv and pip, and make.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
UV_VERSION := 0.13.9
V := .venv
PY := $(V)/bin/python
UV := $(V)/bin/uv
TESTS ?= tests

.PHONY: help run test check bench chaos test-services test-system lock sbom audit

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1|/' | awk -F'|' '{printf "  make %-14s %s\n", $$1, $$2}'

run: $(V)/installed ## start everything and print the address and the logins; Ctrl-C stops it (PORT, DATABASE_URL ...)
	@exec $(PY) manage.py up $(ARGS)

test: $(V)/installed-dev ## all tests on an embedded PostgreSQL (TESTS=path for a part)
	@bash tests/chromium.sh
	@bash tests/run.sh $(TESTS) -- $(ARGS)

check: $(V)/installed-dev ## lint, types, imports, migrations, templates, vendored files
	$(V)/bin/ruff check .
	$(V)/bin/ruff format --check .
	$(V)/bin/mypy
	$(V)/bin/lint-imports
	$(PY) manage.py check --fail-level WARNING
	$(PY) -W "ignore:Got an error checking a consistent migration history" manage.py makemigrations --check --dry-run
	if [ -n "$$(find templates -name '*.html' -print -quit 2>/dev/null)" ]; then $(V)/bin/djlint templates --lint; fi
	$(PY) scripts/generate_docs.py --check
	if [ -f tests/template_lint.py ]; then $(PY) -m tests.template_lint; fi
	if [ -f scripts/vendor_static.py ]; then $(PY) scripts/vendor_static.py --check; fi

bench: $(V)/installed-dev ## figures of speed (PEERS=folder to run others beside it)
	@$(PY) -m tests.bench $(ARGS)

chaos: $(V)/installed-dev ## the long form of the crash tests; all of it writes docs/reliability.md
	@figures=$$(mktemp); trap 'rm -f "$$figures"' EXIT; \
	CHAOS=1 SIGNALBOX_FIGURES="$$figures" $(V)/bin/pytest tests/crash tests/console/test_api_errors.py tests/console/test_fuzzed_api.py tests/console/test_rights.py tests/console/test_headers.py tests/runtime/test_rotation.py tests/browser/test_payloads.py -s --timeout=900 $(ARGS); \
	if [ -z "$(ARGS)" ]; then $(PY) -m tests.crash.figures "$$figures"; fi

test-services: $(V)/installed-dev ## the tests that need a PostgreSQL 15 and a Redis, from Debian's packages
	@bash tests/services.sh $(ARGS)

test-system: $(V)/installed-dev ## against other people's programs from npm and Debian
	@$(V)/bin/pytest tests/system -m system $(ARGS)

sbom: $(V)/installed ## what it is made of, as CycloneDX JSON
	@$(PY) scripts/sbom.py

audit: $(V)/installed-dev ## known weaknesses of what is installed (asks the package index; 3: nobody could be asked)
	@$(PY) scripts/audit_dependencies.py

lock: $(UV) ## write requirements.lock and requirements-dev.lock anew from pyproject.toml
	$(UV) pip compile --universal --generate-hashes --no-emit-index-url --no-header --group dev pyproject.toml -o requirements-dev.lock
	$(UV) pip compile --universal --generate-hashes --no-emit-index-url --no-header -c requirements-dev.lock pyproject.toml -o requirements.lock

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Signalbox needs Python 3.11 or newer: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(V) || { rm -rf $(V); echo "Install Python's venv module (Debian: apt-get install python3-venv)." >&2; exit 1; }
	@$(PY) -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

# The development set holds all of the running set: once it is there, `make run` keeps it.
$(V)/installed: requirements.lock | $(UV)
	@if [ -f $(V)/installed-dev ]; then $(MAKE) --no-print-directory $(V)/installed-dev; \
	else $(UV) pip sync --quiet --compile-bytecode --python $(PY) --require-hashes requirements.lock; fi
	@touch $@

$(V)/installed-dev: requirements-dev.lock | $(UV)
	@$(UV) pip sync --quiet --compile-bytecode --python $(PY) --require-hashes requirements-dev.lock
	@touch $@ $(V)/installed
