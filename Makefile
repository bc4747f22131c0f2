# `make` lists the targets. Set-up is part of them: nothing needs to be there but Python >= 3.11 and make.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
FAULTS ?= fault
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup cluster scm repro test docs test-faults test-slow test-cluster bench official peers verify mlflow reference atlas clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/installed ## make .venv with the pinned requirements

.venv/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	@touch $@

cluster: setup .venv/cluster ## add to .venv what a cluster and a group need: submitit, DVC's S3 and SSH, PostgreSQL

.venv/cluster: requirements-cluster.txt requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-cluster.txt
	@touch $@

# DVC wants git, or to be told that there is none (an unpacked archive, or a folder inside another repository)
scm: setup
	@test "$$(git rev-parse --show-toplevel 2>/dev/null)" = "$(CURDIR)" || grep -qs no_scm .dvc/config.local || dvc config -q --local core.no_scm true

repro: scm ## run the study that params.yaml describes, then read reports/report.html
	python -m stages.repro

test: setup ## ruff, mypy, import-linter, and the fast tests
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	python -m pytest -n 2 --dist worksteal

docs: setup ## build the site into .scratch/site, and stop at a dead link
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict
	@echo "open .scratch/site/index.html"

test-faults: setup ## all faults of docs/robustness.md, with a table of what was done and what happened
	python -m pytest -n 2 --dist worksteal -m "$(FAULTS)"

test-slow: setup ## the slow tests, and all faults with their table: half an hour, hours with TURNCOAT_MIRROR
	python -m pytest -m "slow or fault"

test-cluster: cluster ## with a real Slurm, PostgreSQL, S3 server and sshd on this machine; what is missing is skipped
	python -m pytest -n 3 --dist worksteal -m cluster -rs --durations 10

bench: peers ## attacks, training steps and start-ups beside the peers' (after `make repro`)
	python -m benchmarks --peers .venv/peers/bin/python

peers: setup .venv/peers/installed ## make .venv/peers, the environment of the libraries that are compared with

official: peers ## the authors' own AutoAttack on the study's cells, or on CELLS="--arm mart --seed 0"
	.venv/peers/bin/python -m benchmarks.official $(CELLS)

# An environment of its own: the peers' pins clash with ours, whose packages it sees through a .pth file.
.venv/peers/installed: benchmarks/peers.txt
	$(BIN)/python -m venv .venv/peers
	$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' > "$$(.venv/peers/bin/python -c 'import site; print(site.getsitepackages()[0])')/ours.pth"
	.venv/peers/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement benchmarks/peers.txt
	@touch $@

verify: scm ## check every record, weights file, stored array and cached object against its checksum
	python -m stages.verify

mlflow: setup ## rebuild the MLflow store from the files of the study
	python -m stages.mlflow

reference: setup ## the pages of the kept studies, by today's code and claims: .scratch/reference/NAME/reports/report.html
	python -m stages.reference build

atlas: setup ## one page over all kept studies: reports/reference/atlas.html, and its headlines in README.md
	python -m stages.reference atlas

clean: ## remove what the stages made and what tools left (.venv, DVC's cache, downloads and unsent rows stay)
	rm -rf data models .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find reports -mindepth 1 -maxdepth 1 ! -name reference -exec rm -rf {} + 2>/dev/null || true
	find .scratch -mindepth 1 -maxdepth 1 ! -name downloads ! -name tracking -exec rm -rf {} + 2>/dev/null || true
