# One virtual environment, pinned by constraints.txt; PYTHON chooses the interpreter that makes it.
PYTHON ?= python3
ARGS ?=
SCALE ?= fast
REPRODUCTION := outputs/reproduction/$(SCALE)
experiments = $(basename $(notdir $(wildcard conf/$(1)/experiment/*.yaml)))
VENV := .venv
BIN := $(VENV)/bin
# Stealing keeps a file's tests, which share compiled programs, in one process as far as it goes.
PYTEST := $(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist worksteal
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help train figures reproduce test check faults lint format clean

help:  ## List the targets
	@echo 'usage: make <target>'
	@sed -n 's/^\([a-z]*\):.*## /  \1\t/p' $(MAKEFILE_LIST) | expand -t 12

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) else \
	    "$(PYTHON) is " + sys.version.split()[0] + ": vibx needs 3.11 to 3.13; PYTHON=... names one")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

train: $(INSTALLED)  ## Train the paper's model of Table 1; ARGS="beta=1e-2 epochs=2" changes it
	$(BIN)/vibx train $(ARGS)

figures: $(INSTALLED)  ## Draw Table 1 and the figures from the records in outputs/paper
	$(BIN)/vibx figures root=outputs/paper $(ARGS)

reproduce: $(INSTALLED)  ## Train and attack what is missing for SCALE=smoke, fast or paper, then draw
	for experiment in $(call experiments,train); do \
	    $(BIN)/vibx train experiment=$$experiment scale=$(SCALE) root=$(REPRODUCTION) || exit; \
	done
	for experiment in $(call experiments,attack); do \
	    $(BIN)/vibx attack experiment=$$experiment scale=$(SCALE) root=$(REPRODUCTION) || exit; \
	done
	$(BIN)/vibx figures root=$(REPRODUCTION) output=$(REPRODUCTION)/figures

# Tests compile small programs and run them briefly: half of compiling them as users do is saved.
# (Level 0 compiles faster still, and miscompiles batched random numbers on some CPUs.)
test check faults: export XLA_FLAGS := --xla_backend_optimization_level=1 \
    --xla_cpu_parallel_codegen_split_count=1 --xla_cpu_use_fusion_emitters=false \
    --xla_llvm_disable_expensive_passes=true
test check faults: export JAX_COMPILATION_CACHE_DIR := $(CURDIR)/$(VENV)/jax_cache
test check faults: export JAX_COMPILATION_CACHE_MAX_SIZE := 1000000000
test check faults: export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS := 0
test: lint  ## Install, lint, check types and import contract, run all tests
	$(PYTEST) $(ARGS)

check: lint  ## Lint and the quick tests of the paper's modules, configuration and data: a minute
	$(PYTEST) -m 'not slow' tests/test_*.py tests/config tests/data $(ARGS)

faults: export VIBX_FAULTS := full
faults: $(INSTALLED)  ## Kill, fill disks, damage files, slip: every fault as often as it takes to trust
	$(PYTEST) tests/faults $(ARGS)

lint: $(INSTALLED)  ## Lint, check formatting, types and the import contract
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)  ## Format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:  ## Remove the virtual environment and caches; runs stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis dist
