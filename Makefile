# `make demo` starts everything on this machine, `make test` runs every check. Both do all of their own set-up.
# PYTHON, PORT, DATA_DIR, RATERS and CHROMIUM can be given on the command line or in the environment.

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench clean
SHELL := /bin/bash

PORT ?= 8000
DATA_DIR ?= .data
TEST_WORKERS ?= 3
VENV ?= .venv
export PORT DATA_DIR VENV
ifdef PYTHON
export PYTHON
endif
ifdef RATERS
export RATERS
endif
ifdef CHROMIUM
export CHROMIUM
endif

BIN := $(VENV)/bin
PACKAGES = accounts benchmarks config curation demo generation jobs tests training
JS_TESTS = $(shell find static tests -name '*.test.js' -o -name '*.test.mjs' | sort)

help:
	@echo 'make demo    sets up, starts Atelier with its demo workspace at http://localhost:$(PORT)/, and prints the accounts'
	@echo 'make test    sets up, then checks style, types, imports and behaviour, in a browser too'
	@echo 'make lint    the checks of style, types and imports alone'
	@echo 'make bench   the benchmarks, one JSON object per measurement'
	@echo 'make clean   removes the environment and what tools left; $(DATA_DIR) stays'

demo:
	@tools/set-up worker
	@exec $(BIN)/python manage.py demo

# Every check runs, also after one that failed; pytest has the last word. Tests start hundreds of processes, each of which would
# compile all modules anew where Python is told to keep no bytecode, as build servers often tell it.
test:
	@tools/set-up worker,dev
	@chromium=$$(tools/set-up-browser) && export CHROMIUM="$$chromium" && \
	status=0; \
	$(BIN)/python -m compileall -q $(PACKAGES); \
	$(MAKE) --no-print-directory lint || status=1; \
	$(BIN)/python tools/node.py --test --test-reporter=dot $(JS_TESTS) || status=1; \
	$(BIN)/python -m pytest -n $(TEST_WORKERS) $(PYTEST_ARGS) || status=1; \
	exit $$status

lint:
	@tools/set-up worker,dev
	@status=0; \
	$(BIN)/ruff check . || status=1; \
	$(BIN)/ruff format --check --quiet . || { echo 'Run .venv/bin/ruff format on the files that differ.'; status=1; }; \
	$(BIN)/lint-imports || status=1; \
	git ls-files -z --cached --others --exclude-standard '*.html' | xargs -0r $(BIN)/djade --check --target-version 5.2 || status=1; \
	$(BIN)/mypy . || status=1; \
	if git grep -nE '^(<{7}|>{7}) '; then echo 'Marks of a merge are left.'; status=1; fi; \
	exit $$status

bench:
	@tools/set-up worker,dev
	@exec $(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build atelier.egg-info test-results
	find . -name __pycache__ -type d -not -path './.data/*' -prune -exec rm -rf {} +
