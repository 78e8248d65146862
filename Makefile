# `make demo` trains the byte-level language model; `make test` runs everything. `make help` lists all.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.PHONY: help demo test test-fast kernel lint docs clean

# The first interpreter that is new enough, e.g. `make test PYTHON=/opt/python3.13/bin/python3`.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BACKEND ?= numpy
TESTS ?= tests
ENVS ?= wheel,lint,docs,bare,numpy,torch,jax,tensorflow,mlx,matrix
TOX := .venv-test/bin/tox
WHEEL_PYTHON := .tox/wheel/bin/python

help: ## lists the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/installed ## trains examples/configs/byte_lm.yaml in .venv, then loads it under a second backend
	KERAS_BACKEND=jax .venv/bin/ember-keras train examples/configs/byte_lm.yaml --overwrite
	KERAS_BACKEND=jax .venv/bin/ember-keras evaluate runs/byte_lm --compare-backends

test: $(TOX) ## runs the whole suite in tox: all five backends, lint, docs, a bare environment
	@rm -rf .tox/reports; status=0; $(TOX) run -e $(ENVS) || status=1; \
	.venv-test/bin/python .ci/summary.py .tox/reports || status=1; exit $$status

test-fast: | $(WHEEL_PYTHON) ## runs the quick tests on the working tree, under BACKEND=numpy
	PYTHONPATH=$(CURDIR) OMP_NUM_THREADS=1 TF_CPP_MIN_LOG_LEVEL=3 MPLBACKEND=Agg KERAS_BACKEND=$(BACKEND) \
	$(WHEEL_PYTHON) -m pytest -q -n 2 --dist loadgroup -m "not slow and not matrix" --ignore tests/docs $(TESTS)

kernel: ## compiles the C++ kernel into the working tree, for test-fast and benchmarks
	$(or $(PYTHON),python3) ember_keras/cuda/build.py

lint: | $(WHEEL_PYTHON) ## checks rules, format and types
	$(TOX) run -e lint

docs: | $(WHEEL_PYTHON) ## builds the site into site/, every warning an error
	$(WHEEL_PYTHON) -m mkdocs build --strict

clean: ## removes every environment, build and run folder
	rm -rf .venv .venv-test .tox build dist site runs *.egg-info .*_cache .hypothesis ember_keras/cuda/*.so

.venv/installed: pyproject.toml setup.py
	$(call venv,.venv)
	.venv/bin/python -m pip install --quiet --editable ".[jax,plot]"
	@touch $@

$(TOX): constraints/test.txt
	$(call venv,.venv-test)
	.venv-test/bin/python -m pip install --quiet --constraint constraints/test.txt tox
	@touch $@

$(WHEEL_PYTHON): | $(TOX)
	$(TOX) run -e wheel

define venv
@test -n "$(PYTHON)" || { echo "Ember Keras needs Python 3.11 or newer: found none. Install one, or name it: make PYTHON=/path/to/python3"; exit 1; }
@$(PYTHON) -c "import ensurepip" 2>/dev/null || { echo "$(PYTHON) cannot make a virtual environment. On Debian and Ubuntu: sudo apt-get install python3-venv"; exit 1; }
$(PYTHON) -m venv $(1)
endef
