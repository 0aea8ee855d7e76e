# `make demo` and `make test` are all a newcomer needs; both build .venv first.
PYTHON ?= python3
BIN := .venv/bin
DEVICE_BIN := .venv-device/bin

.PHONY: setup demo test check lint fast slow fix bench clean

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[cloud,device,federated,bench,dev]'
	touch $@

# What a device has: no torch, no transformers.
.venv-device/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-device
	$(DEVICE_BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[device]'
	touch $@

# make demo TEXT=my.txt does it with your own writing.
demo: .venv/ready .venv-device/ready
	$(BIN)/python -m demo --device-python $(DEVICE_BIN)/python $(if $(TEXT),--text "$(TEXT)")

# `make check test` runs the fast tests once.
check: lint fast
test: fast slow

lint: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Tests run side by side, one thread each: two that share the cores' threads wait for each other.
PYTEST := pytest -q --numprocesses auto
fast slow: export OMP_NUM_THREADS = 1

fast: .venv/ready
	$(BIN)/coverage erase
	$(BIN)/coverage run -m $(PYTEST) -m "not slow and not gpu"
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=95
	$(BIN)/coverage report --include='protocol/*' --fail-under=100

slow: .venv/ready
	$(BIN)/python -m $(PYTEST) -m "slow and not gpu"

fix: .venv/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# make bench NAME=training JSON=results/training.json
NAME ?= exactness
JSON ?= results/$(NAME).json
bench: .venv/ready
	mkdir -p $(dir $(JSON))
	$(BIN)/python -m benchmarks $(NAME) --json $(JSON)

clean:
	rm -rf .venv .venv-device demo-output .coverage* .mypy_cache .ruff_cache .pytest_cache
