# `make demo` and `make test` are all a newcomer needs; both build .venv first.
PYTHON ?= python3
BIN := .venv/bin
DEVICE_BIN := .venv-device/bin

.PHONY: setup demo test check fix bench clean

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

# Tests run side by side, one thread each: two that share the cores' threads wait for each other.
PYTEST := pytest -q --numprocesses auto
test check: export OMP_NUM_THREADS = 1

test: .venv/ready
	$(BIN)/python -m $(PYTEST) -m "not gpu"

check: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/coverage erase
	$(BIN)/coverage run -m $(PYTEST) -m "not slow and not gpu"
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=95
	$(BIN)/coverage report --include='protocol/*' --fail-under=100

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
