# One verb, one command; the same here and in CI.

PYTHON ?= python3
BENCH  ?=
ARGS   ?=

venv := .venv
py   := $(venv)/bin/python

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run test check bench clean chromium engines

help: ## what there is to make
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  PYTHON=python3.13 picks the Python (3.11 or newer) of a new $(venv); ARGS=... goes to the program."

run: $(if $(findstring --check,$(ARGS)),$(venv)/dev chromium,$(venv)/base) ## the demonstration; ARGS=--check runs it headless
	@$(py) -m interceptor demo $(ARGS)

test: $(venv)/dev $(venv)/toolkits chromium engines ## all tests; ARGS="-k name" for some
	$(py) -m pytest $(ARGS)

check: $(venv)/dev ## format, lint, types, layers
	$(py) -m ruff format --check .
	$(py) -m ruff check .
	$(py) -m mypy
	$(py) -m pytest -q tests/test_layers.py

bench: $(venv)/bench ## all benchmarks, under ten minutes; BENCH=echo for one of them
	$(py) -m benchmarks$(if $(BENCH),.$(BENCH)) $(ARGS)

clean: ## remove all that make made
	rm -rf $(venv) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: each stands for the project with those extras, installed since pyproject.toml last changed.
$(venv)/base $(venv)/dev $(venv)/bench: pyproject.toml scripts/install
	@scripts/install "$(PYTHON)" $(venv) $(@F)

$(venv)/toolkits: $(venv)/dev scripts/toolkits
	@scripts/toolkits $(venv)

chromium:
	@scripts/chromium

engines: $(venv)/dev
	@scripts/engines $(venv)
