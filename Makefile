# make app      create .venv, install what is pinned, open the page on port 7860
# make test     the same for the tests, a Chromium included, and run everything that must pass (JOBS=2 at once)
# make lint     the linter, the formatter's check and the type checker only
# make bench    every benchmark into benchmarks/results (QUICK=1: under a minute each)
# make screenshots   the pictures of the README, from the running page

SHELL := /bin/bash
PORT ?= 7860
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
IS_NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
# The first Python that is new enough; PYTHON=... chooses another.
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11; do \
	$$name -c '$(IS_NEW_ENOUGH)' 2>/dev/null && { echo $$name; break; }; done)
CHROMIUMS := chromium chromium-browser google-chrome
BENCHMARKS = $(filter-out _%,$(basename $(notdir $(wildcard benchmarks/*.py))))

.PHONY: app test lint chromium bench screenshots

app: $(VENV)/.app-installed
	GRADIO_SERVER_PORT=$(PORT) GRADIO_ANALYTICS_ENABLED=False $(BIN)/python app.py

test: $(VENV)/.dev-installed chromium lint
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

lint: $(VENV)/.dev-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.app-installed
	for name in $(BENCHMARKS); do \
		$(BIN)/python -m benchmarks.$$name $(if $(QUICK),--quick) || exit 1; \
	done

screenshots: $(VENV)/.dev-installed chromium
	$(BIN)/python -m tests.browser.screenshots

# The marks are written last: an interrupted install is taken up again, a finished one is not looked at.
$(VENV)/.app-installed: requirements.txt constraints.txt | $(BIN)/python
	$(PIP) install -r requirements.txt -c constraints.txt
	touch $@

$(VENV)/.dev-installed: requirements-dev.txt $(VENV)/.app-installed
	$(PIP) install -r requirements-dev.txt -c constraints.txt
	touch $@

$(BIN)/python:
	@$(if $(PYTHON),:,echo "Python 3.11 or newer is needed and none was found: install it or run make PYTHON=/path/to/python" >&2; exit 1)
	@$(PYTHON) -c '$(IS_NEW_ENOUGH)' || { \
		echo "Python 3.11 or newer is needed, and $(PYTHON) is $$($(PYTHON) --version 2>&1)." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "$(PYTHON) cannot make virtual environments: install its venv package (Debian: python3-venv)." >&2; exit 1; }

chromium:
	@for name in $(CHROMIUMS); do command -v $$name >/dev/null && exit 0; done; \
	apt=""; command -v apt-get >/dev/null && apt="apt-get"; \
	if [ -n "$$apt" ] && [ "$$(id -u)" != 0 ]; then sudo -n true 2>/dev/null && apt="sudo -n apt-get" || apt=""; fi; \
	if [ -n "$$apt" ]; then $$apt update && DEBIAN_FRONTEND=noninteractive $$apt install -y --no-install-recommends chromium; fi; \
	for name in $(CHROMIUMS); do command -v $$name >/dev/null && exit 0; done; \
	echo "The browser tests need Chromium and it could not be installed from here: install your system's chromium package." >&2; \
	exit 1
