# make run: set-up and the whole pipeline.  make test: set-up and all tests.  Needs Python 3.11 or newer, git and make.
PYTHON ?=  # the first of these that is there and can make an environment
PYTHONS := 3.11 3.13 3.12 3.14
USABLE := import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))
VENV := .venv
NEWEST := .venv-newest
BIN := $(VENV)/bin
EXTRAS := pipeline,onnx
CONSTRAINT := --constraint constraints.txt
FREEZE = $(NEWEST)/bin/python -m pip freeze --all --exclude pip --exclude-editable | LC_ALL=C sort -f
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINT) --editable
# `python -m` instead of installed scripts: a script's first line breaks with some folder names
TFNAS := $(BIN)/python -c 'import sys; from tfnas.cli import main; sys.exit(main())'
export PATH := $(CURDIR)/$(BIN):$(value PATH)
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := true

# runs at the start of every Python here: Snakemake and DVC look up user name and home before they read our files
PROVIDE := import tfnas.jobs.user; tfnas.jobs.user.provide_for_user()

.PHONY: help setup run restore test test-newest test-pythons constraints check format ui clean

help:
	@echo "make run      set-up and the whole pipeline on params.yaml"
	@echo "make restore  results of the commit that is checked out, from DVC's cache"
	@echo "make ui       MLflow UI on http://127.0.0.1:5000"
	@echo "make test     set-up and all tests"
	@echo "make test-newest   the tests with the newest packages that pyproject.toml admits, in $(NEWEST)"
	@echo "make test-pythons  set-up, tests and make run from fresh environments of each Python: hours"
	@echo "make check    lint, types, import layers (what CI and pre-commit run)"
	@echo "make format   format Python and Snakemake files"
	@echo "make clean    remove results and records, without asking; DVC's cache stays"

setup: $(VENV)/installed

$(BIN)/python:
	@for python in $(if $(strip $(PYTHON)),"$(strip $(PYTHON))",$(PYTHONS:%=python%) python3); do \
	  if "$$python" -c '$(USABLE)' 2>/dev/null; then echo "$$python -m venv $(VENV)"; "$$python" -m venv $(VENV); exit; fi; \
	done; \
	echo "error: no Python from 3.11 to 3.14 with venv found; install one (Debian, Ubuntu: also python3-venv), or say" \
	  "where it is: make run PYTHON=/path/to/python3.13"; exit 2

$(VENV)/installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing into $(VENV): about 6 GB, most of it PyTorch; a few minutes ..."
	$(INSTALL) ".[$(EXTRAS)]"
	@echo '$(PROVIDE)' > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/tfnas-user.pth"
	@touch $@

$(VENV)/installed-dev: pyproject.toml constraints.txt $(VENV)/installed
	$(INSTALL) ".[dev]"
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

# once a week, say: what will break, before it reaches those who install by pip
test-newest:
	rm -rf $(NEWEST)
	$(MAKE) $(NEWEST)/installed-dev VENV=$(NEWEST) CONSTRAINT=
	@echo "Newer than constraints.txt:"; $(FREEZE) | grep -vxF -f constraints.txt || echo none
	TFNAS_UNCONSTRAINED=1 $(MAKE) test VENV=$(NEWEST) CONSTRAINT=

constraints: $(NEWEST)/installed-dev  # after make test-newest has passed
	{ grep '^#' constraints.txt; $(FREEZE); } > constraints.txt.new && mv constraints.txt.new constraints.txt

test-pythons: setup
	$(BIN)/python benchmarks/pythons.py

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
