# The developer's words; CI calls the same ones. Everything happens in .venv, pinned by constraints.txt.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup check test test-all demo bench docs clean

setup: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

check: setup
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports

test: setup
	$(BIN)/pytest -n 2

test-all: setup
	$(BIN)/pytest -n 2 -m ""

# Signed with a key that has no passphrase and stands for nobody.
demo: export MEDISTILL_PASSPHRASE =
demo: setup
	test -e demo/demo-key-of-nobody.key || $(BIN)/medistill keys new demo-key-of-nobody --out demo
	$(BIN)/medistill run recipes/demo.toml --out demo --key demo/demo-key-of-nobody.key

bench: setup
	$(BIN)/python -m benchmarks.gradient
	$(BIN)/python -m benchmarks.training

docs: setup
	$(BIN)/pytest tests/test_docs.py

clean:
	rm -rf .venv demo runs
