# `make demo` and `make test` set up everything they need in .venv. PYTHON chooses the interpreter, VENV the place.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do $$p -c 'import sys; exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN = $(VENV)/bin
OUT ?= runs/demo

.PHONY: demo test docs site lint slow clean

$(VENV)/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo 'Python 3.11, 3.12 or 3.13 is needed; name one with make PYTHON=...'; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

demo: $(VENV)/.installed
	rm -rf $(OUT)
	$(BIN)/ooorl demo --out $(OUT)

# Byte code is kept whatever the shell says: four workers, and every process that a test starts, read the same files.
test: export PYTHONDONTWRITEBYTECODE =
test: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -n auto --dist loadfile --durations=12

slow: $(VENV)/.installed
	$(BIN)/python -m pytest -m slow

docs: $(VENV)/.installed
	$(BIN)/python docs/generate.py
	$(BIN)/python experiments/benchmark_table.py

site: docs
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[site]'
	$(BIN)/mkdocs build

mutants: $(VENV)/.installed
	$(BIN)/python tests/mutants.py $(MUTANTS)

lint: $(VENV)/.installed
	$(BIN)/ruff check .

clean:
	rm -rf $(VENV) runs
