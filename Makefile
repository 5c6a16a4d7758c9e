# make demo    nine avocado armchairs by each DALL·E, from nothing
# make test    lint, types, and every test
# make bench   speed against the rivals, each in turn; half an hour or more

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test bench figures clean

demo: .venv/installed
	$(BIN)/armchair generate "an armchair in the shape of an avocado" --count 9 --seed 0 --out out/demo
	$(BIN)/armchair generate "an armchair in the shape of an avocado" --count 9 --seed 0 \
		--model dalle2-scenes --out out/demo-dalle2

test: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest -n 2

bench: .venv/installed-dev .venv-rivals/installed
	$(BIN)/python benchmarks/bench.py

figures: .venv/installed-dev
	$(BIN)/python docs/figures.py

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed"'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check -c constraints.txt -e .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

.venv-rivals/installed: benchmarks/rivals.txt constraints.txt
	$(PYTHON) -m venv .venv-rivals
	.venv-rivals/bin/pip install --disable-pip-version-check --no-deps -r benchmarks/rivals.txt
	.venv-rivals/bin/pip install --disable-pip-version-check -c constraints.txt torch transformers pillow requests
	touch $@

clean:
	rm -rf .venv .venv-rivals out
