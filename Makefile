# The menu: `make help`. Needs only make and Python 3.11 or newer; everything else goes into .venv.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq install -c constraints.txt
NO_PACKAGES := { echo "The packages could not be installed; is there a network and room on the disk?" >&2; exit 1; }
# Processes of the suite that run side by side; 0 runs all in one.
JOBS ?= auto
# Checks that only import the settings need some key; it guards nothing.
CHECK := SECRET_KEY=only-for-checks $(BIN)/

.PHONY: help run test test-fast test-database test-broker lint style types format migrations-check bench demo-reset check clean

help: ## this menu
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/.installed ## start everything: database, web, worker, beat (Ctrl-C stops it)
	@$(BIN)/python -m config.up --with-parent

demo-reset: $(VENV)/.installed ## throw the demo's data away and make it anew (while `make run` runs)
	@$(BIN)/python manage.py demo --reset

test: $(VENV)/.installed-test chromium ## the whole suite on a real PostgreSQL, broker, browser and SDKs
	@METERBOOK_REQUIRE_ALL=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup $(ARGS)

test-fast: $(VENV)/.installed-test ## the part that needs no database: seconds
	@$(BIN)/python -m pytest --fast -q $(ARGS)

test-database: $(VENV)/.installed-test ## the part that needs one, on DATABASE_URL where given
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup -m "not browser and not sdk and not faults" $(ARGS)

test-broker: $(VENV)/.installed-test ## tasks and beat on CELERY_BROKER_URL where given
	@$(BIN)/python -m pytest tests/faults/test_broker.py tests/faults/test_beat.py $(ARGS)

lint: style types ## style and types
style: $(VENV)/.installed-test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
types: $(VENV)/.installed-test
	@$(CHECK)mypy .

format: $(VENV)/.installed-test ## let ruff lay the code out
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

migrations-check: $(VENV)/.installed-test ## fail when a model changed without its migration
	@$(CHECK)python -W ignore::RuntimeWarning manage.py makemigrations --check --dry-run

bench: $(VENV)/.installed-test ## measure metering beside its limits: minutes, and best on a quiet machine
	@$(BIN)/python -m benchmarks $(ARGS)

check: lint migrations-check test ## all that must be right before a commit

clean: ## remove what was installed and cached; var/ with the data stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache *.egg-info

.PHONY: chromium
chromium:
	@sh config/up/need-chromium.sh

# -- installing: again only when what is wanted changed -------------------------------------------------------

$(VENV)/.made:
	@sh config/up/make-venv.sh $(PYTHON) $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.made pyproject.toml constraints.txt
	@echo "Installing what Meterbook needs into $(VENV)."
	@$(PIP) '.[embedded]' || $(NO_PACKAGES)
	@touch $@

$(VENV)/.installed-test: $(VENV)/.made pyproject.toml constraints.txt
	@echo "Installing what Meterbook and its tests need into $(VENV)."
	@$(PIP) '.[embedded,test,lint]' || $(NO_PACKAGES)
	@touch $@ $(VENV)/.installed
