# `make` alone lists what there is. Everything is installed into this folder; nothing needs Docker or an AWS account.

PYTHON ?= python3
ENV ?= default
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
# Parameters given to `sam deploy` replace those of samconfig.toml, so they are read from there and given too.
OVERRIDES = $(shell $(PYTHON) -c 'import tomllib; print(*tomllib.load(open("samconfig.toml", "rb"))["$(ENV)"]["deploy"]["parameters"].get("parameter_overrides", []))')
export SAM_CLI_TELEMETRY := 0
export PYTHONPATH := layers/portaria
RUN := .venv/bin/python
# Suites that need no local cloud, and so can share the processors.
ON_THEIR_OWN := tests/browser/test_pages_in_chromium.py tests/unit tests/platforms \
	$(addprefix tests/faults/,test_simulation.py test_planted_bugs.py test_grant_crashes.py test_install_crashes.py test_simulated_cloud.py)
CODE := layers functions local bench tests

.PHONY: help setup up down status logs demo test check bench faults configure portaria build deploy lock clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: .venv/.ready .venv-sam/.ready .venv-ministack/.ready ## Install what development needs, into .venv*

.venv/.ready: requirements/dev.txt
.venv-sam/.ready: requirements/sam.txt
.venv-ministack/.ready: requirements/ministack.txt
.venv/.ready .venv-sam/.ready .venv-ministack/.ready:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.13")'
	@echo "Installing $< into $(@D) (once)"
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

up: setup ## Start the local cloud and deploy the template to it
	@$(RUN) -m local up

down: ## Stop the local cloud
	@$(RUN) -m local down

status: ## Say what the local cloud is doing
	@$(RUN) -m local status

logs: ## Follow the functions' logs on the local cloud
	@$(RUN) -m local logs

demo: setup ## Let 24 accounts install and compare what arrives in Marketo, field by field
	@$(RUN) -m local.demo

configure: setup ## Register what FILE=... describes (STACK=build/stack.json for the local cloud)
	@$(RUN) -m portaria $(if $(STACK),--stack-file $(STACK)) configure $(FILE)

check: setup ## Style, types and the template
	@.venv/bin/ruff format --check $(CODE)
	@.venv/bin/ruff check $(CODE)
	@.venv/bin/mypy
	@.venv-sam/bin/sam validate --lint

test: check ## Everything: checks, unit, platforms, template, the local cloud, browser, short faults
	@$(RUN) -m pytest --numprocesses 2 --dist loadfile $(ON_THEIR_OWN)
	@$(RUN) -m pytest tests/stack tests/browser tests/faults $(ON_THEIR_OWN:%=--ignore %)

bench: setup ## Measure the published figures (NAME=cold_answer for one)
	@$(RUN) -m bench $(NAME)

faults: setup ## The long fault suites
	@$(RUN) -m pytest tests/faults --long

portaria: setup ## Run the command line: make portaria ARGS="installs list"
	@$(RUN) -m portaria $(if $(STACK),--stack-file $(STACK)) $(ARGS)

build: setup ## Build the template for the Python that make runs with, and compile what will be deployed
	@.venv-sam/bin/sam build --cached --parameter-overrides PythonRuntime=python$(VERSION)
	@$(PYTHON) -m compileall -q --invalidation-mode unchecked-hash .aws-sam/build

deploy: build ## Deploy to the AWS account of your credentials (ENV=staging, ENV=production: see samconfig.toml)
	@.venv-sam/bin/sam deploy --config-env $(ENV) --parameter-overrides $(OVERRIDES) PythonRuntime=python$(VERSION)

lock: .venv/.ready ## Pin anew what requirements/*.in ask for
	@for layer in portaria libraries; do (cd layers/$$layer && ../../.venv/bin/pip-compile --quiet --upgrade --strip-extras --no-emit-index-url --no-header --no-annotate requirements.in); done
	@cd requirements && for name in dev sam ministack; do ../.venv/bin/pip-compile --quiet --upgrade --allow-unsafe --strip-extras --no-emit-index-url --no-header --no-annotate $$name.in; done

clean: ## Remove what was built and installed here
	@rm -rf .aws-sam build .venv .venv-sam .venv-ministack
