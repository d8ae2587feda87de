# Everything is done through here. `make` alone lists the targets.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.stamp

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo serve test soak lint fmt bench lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv from requirements.lock (the others do this by themselves)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Hilo needs Python 3.11 or newer, and '$(PYTHON)' is not." \
	       "Name one that is: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --require-hashes --requirement requirements.lock
	@# setuptools warns about every editable install of a folder like this one
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(STAMP) ## a whole bot with simulated WhatsApp and OpenAI: killed, restarted, checked
	$(BIN)/hilo demo

serve: $(STAMP) ## start the bot (simulated outside world unless keys are set)
	$(BIN)/hilo serve

test: lint ## lint, types and all tests, with the coverage floor
	$(BIN)/pytest -n 2 --dist loadfile --cov --cov-report=term

soak: $(STAMP) ## kill, pause and cut off nodes at random for SOAK_SECONDS (300); not in `make test`
	SOAK_SECONDS=$${SOAK_SECONDS:-300} $(BIN)/pytest -s tests/faults/nodes -k soak

lint: $(STAMP) ## ruff and mypy --strict
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

fmt: $(STAMP) ## let ruff fix and format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(STAMP) ## measure, side by side with what one would pick instead
	$(BIN)/hilo bench

# The default index only: a private index or a local folder of wheels would put its own hashes,
# or its name, into the lock (docs/decisions/0001).
lock: $(STAMP) ## write requirements.lock again, with the newest versions that fit
	PIP_CONFIG_FILE=/dev/null PIP_FIND_LINKS= PIP_EXTRA_INDEX_URL= \
	CUSTOM_COMPILE_COMMAND='make lock' $(BIN)/pip-compile --quiet --upgrade --extra dev \
	  --generate-hashes --no-emit-options --no-strip-extras --allow-unsafe \
	  --output-file requirements.lock pyproject.toml

clean: ## remove everything that was made here, .venv included
	rm -rf $(VENV) build dist ./*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis htmlcov
	rm -f .coverage .coverage.*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
