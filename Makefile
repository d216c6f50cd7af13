# Common tasks. Each target first sets up what it needs.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install house oracle goldens reference demo test test-faults test-slow test-cluster check gpu-check format docs figures bench bench-latency readme clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: install
	$(BIN)/tfnas demo --out results/demo

test: install
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

test-faults: install
	$(BIN)/pytest -m 'faults and not slow' -n 2

test-slow: install
	$(BIN)/pytest -m slow

test-cluster: install
	$(BIN)/pytest -m cluster tests/cluster

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: .venv/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.venv/installed-docs: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

# README's figures and its table of results, and of the replication study all figures and tables into build/replication,
# and the reports beside its bundles.
figures: install
	$(BIN)/python -m scripts.readme_results
	for bundle in docs/replication/*.bundle; do \
		out=build/replication/$$(basename $$bundle .bundle); \
		$(BIN)/tfnas report --from $$bundle --out $$out && cp $$out/report.html $${bundle%.bundle}.html || exit; \
	done

bench: install
	$(BIN)/python -m benchmarks.steps
	$(BIN)/python -m benchmarks.scaling
	$(BIN)/python -m benchmarks.profile
	$(BIN)/python -m benchmarks.elasticity
	$(BIN)/python -m benchmarks.threads
	$(BIN)/python -m benchmarks.grid
	$(BIN)/python -m benchmarks.overhead
	$(BIN)/python -m benchmarks.images

# Installs nothing: it runs wherever torch does. Without a GPU it ends with exit code 2.
gpu-check:
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m benchmarks.gpu_check --out results

bench-latency: install
	$(BIN)/python -m benchmarks.latency

readme: install
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python scripts/run_readme.py

clean:
	rm -rf results build .mypy_cache .ruff_cache .pytest_cache

house: install
	$(BIN)/python -m scripts.house

oracle: install
	$(BIN)/tfnas launch tune_configs/oracle_nano.yaml --out results/oracle_nano
	test -f results/oracle_nano/table.json || $(BIN)/tfnas latency measure --space nano --batch-size 32 \
		--out results/oracle_nano/table.json
	$(BIN)/python -m scripts.make_oracle nano results/oracle_nano --table results/oracle_nano/table.json

reference: install
	$(BIN)/tfnas config --markdown > docs/config.md
	$(BIN)/tfnas config --schema > tune_configs/schema.json

goldens: install
	$(BIN)/python -m tests.support.goldens
