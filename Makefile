# make run: set-up and the whole pipeline.  make test: set-up and all tests.  Needs Python 3.11, git and make.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# `python -m` instead of installed scripts: a script's first line breaks with some folder names
TFNAS := $(BIN)/python -c 'import sys; from tfnas.cli import main; sys.exit(main())'
export PATH := $(CURDIR)/$(BIN):$(value PATH)
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := true

# runs at the start of every Python here: Snakemake and DVC look up user name and home before they read our files
PROVIDE := import tfnas.jobs.user; tfnas.jobs.user.provide_for_user()

.PHONY: help setup run restore test check format ui clean

help:
	@echo "make run      set-up and the whole pipeline on params.yaml"
	@echo "make restore  results of the commit that is checked out, from DVC's cache"
	@echo "make ui       MLflow UI on http://127.0.0.1:5000"
	@echo "make test     set-up and all tests"
	@echo "make check    lint, types, import layers (what CI and pre-commit run)"
	@echo "make format   format Python and Snakemake files"
	@echo "make clean    remove results and records, without asking; DVC's cache stays"

setup: $(VENV)/installed

$(BIN)/python:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || \
	  { echo "error: Python 3.11 not found; install it, or say where it is: make run PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(BIN)/python
	@echo "Installing into $(VENV): about 6 GB, most of it PyTorch; a few minutes ..."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@echo '$(PROVIDE)' > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/tfnas-user.pth"
	@touch $@

$(VENV)/installed-dev: pyproject.toml $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@

run: setup
	$(BIN)/python -m snakemake --cores all
	@$(TFNAS) sync || echo "DVC does not have these results yet; the line above says why"
	@echo
	@echo "Report:    results/report/report.html"
	@echo "MLflow UI: make ui, then open http://127.0.0.1:5000"
	@if git rev-parse HEAD >/dev/null 2>&1; then \
	  echo "To keep these results: git add dvc.lock params.yaml, then git commit; later, make restore"; \
	else echo "These results record no commit; the first line of the run above says why, and what to do"; fi

restore: setup
	$(TFNAS) restore

ui: setup
	@$(BIN)/python -m tfnas.tracking.store  # if the project was moved: finds its artifacts
	$(BIN)/python -m mlflow ui --backend-store-uri sqlite:///mlflow.db

# three processes on two cores, because many tests wait; one thread each, or threads would wait for each other
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

dvc.yaml: tfnas/stages/registry.py $(VENV)/installed-dev  # after editing the registry
	$(BIN)/python -m tfnas.engines.dvc_yaml

clean:
	rm -rf results/*/ logs checkpoints .snakemake dvc.lock mlflow.db mlflow.db.lock mlruns mlartifacts mlflow-unsent
	git checkout --quiet -- results 2>/dev/null || mkdir -p results/transfer results/scale_baseline results/train_baseline results/rank_baselines
