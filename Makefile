# Every target sets up what it needs in .venv by itself; nothing asks for root.
# Other Python: make PYTHON=python3.12 install       Arguments of a study: make study ARGS="--trials 20"

PYTHON ?= python3
ARGS ?=
PY := .venv/bin/python
INSTALLED := .venv/.installed

# Where an environment forbids it, each of the many processes of a study and of the tests compiles dirprune anew.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help install study test test-slow check format audit clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1@\2/p' Makefile | awk -F@ '{ printf "%-18s %s\n", $$1, $$2 }'

install: $(INSTALLED)  ## set up .venv with dirprune and everything it needs

study: $(INSTALLED)  ## the LeNet study on handwritten digits, to a Pareto front (ARGS="..." for its options)
	@$(PY) studies/lenet.py --resume $(ARGS)

test: $(INSTALLED)  ## the tests, without the long ones, some at once where there are cores
	$(PY) -m pytest -m "not slow" --numprocesses logical --maxprocesses 4 --dist loadfile

test-slow: $(INSTALLED)  ## the long tests, three at once, as they wait a lot: whole studies, crashes, the MLflow UI
	$(PY) -m pytest -m slow --numprocesses 3 --dist loadfile --no-loadscope-reorder

check: $(INSTALLED)  ## ruff (lint and format) and mypy
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: $(INSTALLED)  ## let ruff fix and format the code
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

audit: $(INSTALLED)  ## what PyPI knows against the packages in .venv (ARGS=--warn: findings are warnings)
	@test -x .audit/bin/pip-audit || { $(PYTHON) -m venv .audit && \
	  .audit/bin/python -m pip install --quiet --disable-pip-version-check 'pip-audit==2.*'; } || true
	@mkdir -p .audit && $(PY) -m pip list --format freeze --exclude-editable > .audit/requirements.txt
	@$(PY) .ci/audit.py .audit/bin/pip-audit .audit/requirements.txt $(ARGS)

clean:  ## remove .venv, caches and build products; studies in output/ stay
	rm -rf .venv .audit build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -not -path './output/*' -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || { \
	  echo "error: expected Python 3.11 to 3.13, got $$($(PYTHON) --version 2>&1 | head -n 1);" \
	       "try make PYTHON=python3.12 ..." >&2; exit 2; }
	@$(PYTHON) -m venv .venv || { \
	  echo "error: expected Python's venv module, got the failure above; try the package python3-venv" >&2; exit 2; }
	@echo "setting up .venv: several GB, a few minutes the first time"
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
