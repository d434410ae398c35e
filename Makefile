# make help lists the targets. DATA is where the data sets are: docs/data.md says how to lay them out.
DATA ?= data
PYTHON ?= python3
EXTRA ?= cpu
MODELS := denoiser-fast walkway walkway-vae digits

BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
SERVING := .venv/.serving-$(EXTRA)
TESTING := .venv/.testing-$(EXTRA)
HARDENING := .venv/.hardening-$(EXTRA)

.PHONY: help setup serve test check format models lecture soak fuzz audit sbom image clean

help: ## list the targets
	@grep -E '^[a-z%-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: $(TESTING) ## install everything: serving, client, training, tests

serve: $(SERVING) ## install what serving needs, and serve the shipped models
	@$(BIN)/python -m service

test: $(TESTING) ## install the rest, and run the tests
	$(BIN)/python -m pytest --data=$(DATA) $(ARGS)

check: $(TESTING) ## ruff, ruff format, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(TESTING) ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

models: $(TESTING) ## train, export and evaluate every shipped model again (hours on a CPU)
	$(BIN)/python -m training make $(MODELS) --data $(DATA)

bench-%: $(TESTING) ## run benchmarks/NAME.py; ARGS="--json FILE" also writes the figures
	$(BIN)/python -m benchmarks.$* --data $(DATA) $(ARGS)

soak: $(TESTING) ## ten minutes of everything against a running service; ARGS="--minutes 60" for an hour
	$(BIN)/python -m benchmarks.soak $(ARGS)

fuzz: $(HARDENING) ## fuzz the decoder for a minute; ARGS="-max_total_time=3600" for an hour
	$(BIN)/python -m tests.runtime.fuzz_images $(ARGS)

audit: $(HARDENING) ## look the pinned versions up among the known vulnerabilities; fails where it cannot
	$(BIN)/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip $(ARGS)

sbom: $(HARDENING) ## write what is installed to sbom.json (CycloneDX); the image has its own
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-file sbom.json .venv

lecture: $(TESTING) ## train, measure and write docs/lecture.md (a night on a CPU); QUICK=1 for a look in minutes
	$(BIN)/python -m benchmarks.lecture --data $(DATA) $(if $(QUICK),--quick) $(ARGS)

image: ## build the service image for the CPU
	docker build --target cpu --tag clearwatch:cpu .

clean: ## remove what setup installed
	rm -rf .venv *.egg-info

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version) if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv .venv

$(HARDENING): $(TESTING)
	$(PIP) --editable '.[$(EXTRA),hardening]'
	@touch $@

$(SERVING): pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) --editable '.[$(EXTRA),client]'
	@touch $@

$(TESTING): $(SERVING)
	$(PIP) --editable '.[$(EXTRA),openvino,client,training,stills,dev]'
	@touch $@
