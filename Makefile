# make run: set-up and the whole pipeline.  make test: set-up and all tests.  Needs Python 3.11, git and make.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := true

.PHONY: help setup run restore test check format ui clean

help:
	@echo "make run      set-up and the whole pipeline on params.yaml"
	@echo "make restore  results of the commit that is checked out, from the DVC cache"
	@echo "make ui       MLflow UI on http://127.0.0.1:5000"
	@echo "make test     set-up and all tests"
	@echo "make check    lint, types, import layers (what CI and pre-commit run)"
	@echo "make format   format Python and Snakemake files"
	@echo "make clean    remove results and records (asks DVC nothing; the DVC cache stays)"

setup: $(VENV)/installed

$(BIN)/python:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || \
	  { echo "error: Python 3.11 was not found; install it, or name it: make run PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(BIN)/python
	@echo "Installing into $(VENV): about 6 GB, most of it PyTorch; a few minutes ..."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/installed-dev: pyproject.toml $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@

run: setup
	snakemake --cores all
	tfnas sync
	@echo
	@echo "Report:    results/report/report.html"
	@echo "MLflow UI: make ui, then open http://127.0.0.1:5000"
	@echo "Keep this: git add dvc.lock params.yaml, then git commit; make restore comes back to it"

restore: setup
	tfnas restore

ui: setup
	@python -m tfnas.runtime.store  # artifacts of a folder that was moved
	mlflow ui --backend-store-uri sqlite:///mlflow.db

# three processes on two cores, since many tests wait; one thread in each, or those of one wait for those of another
test: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 pytest --numprocesses 3 --dist worksteal --durations 25

check: $(VENV)/installed-dev
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile workflow
	mypy
	lint-imports

format: $(VENV)/installed-dev
	ruff check --fix .
	ruff format .
	snakefmt Snakefile workflow

clean:
	rm -rf results/*/ logs checkpoints .snakemake dvc.lock mlflow.db mlflow.db.lock mlruns mlartifacts mlflow-unsent
	git checkout --quiet -- results
