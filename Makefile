# Everything works in .venv, which is made when it is missing. Needed beforehand: Python 3.11+, a C compiler, make.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
CORE := setup.py kms_fast/_core.pyx $(wildcard kms_fast/_core/*.pxi kms_fast/_core/*.pxd kms_fast/_core/*.h)

.PHONY: help demo test walkthrough lint build check-dist durability guard bench clean

help:            ## Show these targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: .venv/core.stamp            ## Run a publisher, a host and ten seconds of checked load
	$(BIN)/kms-fast lab

JOBS ?= 2

test: .venv/core.stamp .venv/test.stamp            ## Run the test suite, or TESTS="tests/cli -k doctor"; JOBS=0 one by one
	$(BIN)/python -m pytest -n $(JOBS) $(TESTS)

walkthrough: .venv/core.stamp .venv/test.stamp            ## Run docs/walkthrough.md on real servers, and compare: RECORD=1 writes it anew
	@$(BIN)/python -m tests.walkthrough $(if $(RECORD),--record)

lint: .venv/core.stamp .venv/test.stamp .venv/lint.stamp            ## Run ruff, mypy, stubtest and cython-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest kms_fast._core --ignore-disjoint-bases --allowlist tests/stubtest.allow
	PATH="$(CURDIR)/$(BIN):$$PATH" cython-lint kms_fast

build: .venv/dev.stamp            ## Make sdist and wheel in dist/
	rm -rf dist
	$(BIN)/python -m build -q

check-dist: build            ## Install sdist and wheel in clean environments and run the lab from each
	bash .ci/check-dist

KILLS ?= 20
CUTS ?= 200
ORDER ?= 200

durability: .venv/core.stamp .venv/test.stamp            ## Kill hosts, cut their power and check what is left: KILLS=20 CUTS=200 ORDER=200
	@$(BIN)/python -m tests.durability --kills $(KILLS) --cuts $(CUTS) --order $(ORDER)

guard: .venv/core.stamp .venv/test.stamp            ## Count what an activation costs and compare with the bounds: RECORD=1 sets them anew
	@$(BIN)/python -m tests.guard $(if $(RECORD),--record)

bench: .venv/core.stamp .venv/test.stamp            ## Run all benchmarks, or go on with those that are missing: QUICK=1 OUT=folder
	@$(BIN)/python bench/run.py $(if $(QUICK),--quick) $(if $(OUT),--out $(OUT))

clean:            ## Remove everything that is made here
	rm -rf .venv .durability build dist *.egg-info kms_fast/_core.c kms_fast/_core.*.so

.venv/made.stamp:
	$(PYTHON) -m venv --upgrade-deps .venv
	touch $@

# Editable: the extension is compiled beside its source, and the source runs as it is.
.venv/package.stamp: .venv/made.stamp pyproject.toml
	$(PIP) install --group build
	$(PIP) install --no-build-isolation -e .
	touch $@

.venv/core.stamp: .venv/package.stamp $(CORE)
	$(BIN)/python setup.py -q build_ext --inplace
	touch $@

.venv/test.stamp .venv/lint.stamp .venv/dev.stamp: .venv/%.stamp: .venv/made.stamp pyproject.toml
	$(PIP) install --group $*
	touch $@
