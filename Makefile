# Everything from a fresh clone: `make demo` shows the tool at work, `make test` checks it.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: help setup demo test lint bench docs clean

help:
	@echo "make demo   install, then pre-train, fine-tune and evaluate EAT on the built-in audio (about 5 minutes)"
	@echo "make test   install, then lint and run the tests"
	@echo "make bench  install, then measure speed ratios (JSON lines)"
	@echo "make docs   write the generated pages anew"

setup: $(VENV)/.installed

# constraints.txt pins versions known to work together
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	  || { echo "c2ftool needs Python 3.11 to 3.13; name one: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: setup
	PATH="$(CURDIR)/$(BIN):$$PATH" bash recipes/demo.sh

test: setup lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	for script in tests/benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done

docs: setup
	$(BIN)/python -m typer c2ftool.cli.main utils docs --name c2f --output docs/commands.md
	$(BIN)/c2f specs schema --markdown > docs/specs.md.tmp && mv docs/specs.md.tmp docs/specs.md

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
