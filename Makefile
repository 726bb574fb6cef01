# `make` alone lists what there is. Everything is installed into this folder; nothing needs Docker or an AWS account.

PYTHON ?= python3
ENV ?= default
STACK_NAME = $(shell $(RUN) -m local.environments $(ENV))
export SAM_CLI_TELEMETRY := 0
export PYTHONPATH := layers/portaria:cli
# Without bytecode each process compiles every module again, and pytest rewrites the assertions of every test module again.
unexport PYTHONDONTWRITEBYTECODE
RUN := .venv/bin/python
# `make test` runs pytest once for each group of suites. The groups run at the same time and leave their reports here.
GROUPS := unit offline faults cloud isolated
REPORTS := build/tests
# Without the network and without a local cloud, in three groups of about the same length. A process for each imports only its own.
FAULTS := $(addprefix tests/faults/,crashes hostile simulated)
OFFLINE := tests/aws tests/peers tests/template tests/platforms tests/unit/repository tests/unit/cli tests/unit/web
UNIT := tests/unit $(addprefix --ignore ,$(filter tests/unit/%,$(OFFLINE)))
# On the local cloud of this checkout.
CLOUD := tests/stack tests/browser tests/faults/kills
# With what the tests start themselves: another local cloud, a build, a browser.
ISOLATED := $(addprefix tests/stack/local_cloud/,test_local_cloud.py test_execution_environment.py test_builds.py) \
	$(addprefix tests/browser/,test_pages_in_chromium.py test_branded_pages.py console)
STARTED := $(shell date +%s)
CODE := layers cli functions local bench tests examples

.PHONY: help setup environments linters up down status logs invoke sandbox clean-sandbox console console-screenshots demo demo-app check style types imports template workflows document secrets test test-unit test-offline test-faults test-cloud test-isolated openapi audit bench faults configure portaria build deploy smoke doctor lock clean

help: ## Show this list
	@grep -hE '^[a-z -]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# AWS builds its runtime client for Linux only.
ENVIRONMENTS := .venv/.ready .venv/bin/portaria .venv-sam/.ready .venv-ministack/.ready $(if $(filter Linux,$(shell uname)),.venv-runtime/.ready)
setup: ## Install what development needs, into .venv*
	@$(MAKE) --no-print-directory --jobs 3 environments

# The recipes of these two keep make from saying that there is nothing to be done.
environments: $(ENVIRONMENTS)
	@:

linters: environments .node/.ready
	@:

# The pip that installs everything. The one that Python 3.11 brings takes twice as long, and each environment would get its own.
PIP := .venv-pip/bin/python -m pip
.venv-pip/.ready: requirements/build.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.13")'
	@$(PYTHON) -m venv --clear $(@D)
	@$(PIP) install --quiet --disable-pip-version-check --require-hashes --only-binary :all: --requirement $<
	@touch $@

.venv/.ready: requirements/dev.txt
.venv-sam/.ready: requirements/sam.txt
.venv-ministack/.ready: requirements/ministack.txt
# Without pip: a function sees what Lambda's runtime has, and nothing else.
.venv-runtime/.ready: requirements/runtime.txt
# A lock names everything, so pip resolves nothing.
.venv/.ready .venv-sam/.ready .venv-ministack/.ready .venv-runtime/.ready: | .venv-pip/.ready
	@echo "Installing $< into $(@D) (once)"
	@$(PYTHON) -m venv --clear --without-pip $(@D)
	@$(PIP) --python $(@D)/bin/python install --quiet --disable-pip-version-check --require-hashes --only-binary :all: --no-deps --requirement $<
	@$(PIP) --python $(@D)/bin/python check --quiet --disable-pip-version-check
	@touch $@

# The linter of docs/openapi.yaml. `make check` needs Node.js; nothing else does.
.node/.ready: requirements/redocly/package-lock.json
	@command -v npm >/dev/null || { echo 'make check needs npm (Node.js 20.19 or newer) to lint docs/openapi.yaml' >&2; exit 1; }
	@echo "Installing requirements/redocly into .node (once)"
	@mkdir -p .node && cp requirements/redocly/package.json requirements/redocly/package-lock.json .node/
	@npm ci --prefix .node --silent --no-audit --no-fund --ignore-scripts
	@touch $@

# The command line, from this folder. Not an editable install: of two folders it would import a finder into every process.
.venv/bin/portaria: .venv/.ready
	@printf '#!/bin/sh\nPYTHONPATH="%s" exec "%s/.venv/bin/python" -m portaria_cli "$$@"\n' \
		"$(CURDIR)/layers/portaria:$(CURDIR)/cli" "$(CURDIR)" > $@
	@chmod +x $@

up: setup ## Start the local cloud and deploy the template to it
	@$(RUN) -m local up

down: ## Stop the local cloud
	@$(RUN) -m local down

status: ## Say what the local cloud is doing
	@$(RUN) -m local status

logs: setup ## Follow the functions' logs on the local cloud (ARGS="exchange_code --connection NAME")
	@$(RUN) -m portaria_cli --stack-file $(or $(STACK),build/stack.json) logs --follow $(ARGS)

invoke: setup ## Run one function as Lambda does: make invoke FUNCTION=AcceptInstallFunction EVENT=events/... (or -)
	@$(RUN) -m local invoke $(FUNCTION) $(EVENT)

sandbox: setup ## The local cloud with accounts in it, to try things (ARGS="--help" for what can be done there)
	@$(RUN) -m local.sandbox $(ARGS)

clean-sandbox: ## Stop the local cloud and remove its data
	@$(RUN) -m local.sandbox clean --yes

console: setup ## Open the console of the local cloud in Chromium, after make sandbox or make demo KEEP=1
	@$(RUN) -m local.sandbox console $(ARGS)

console-screenshots: setup ## Pictures of every page of the console, in two sizes and two colour schemes, in build/screenshots
	@$(RUN) -m pytest tests/browser/console/test_screenshots.py --long --quiet

demo: setup ## Let 24 accounts install and compare what arrives in Marketo, field by field (KEEP=1 leaves it running, STORE=table seals credentials in the table)
	@$(RUN) -m local.demo $(if $(KEEP),--keep) $(if $(STORE),--store $(STORE))

demo-app: setup ## Run examples/web_app on the local cloud: an application whose customers connect Kommo (PORT=8321, KEEP=1)
	@$(RUN) -m local.demo.application $(if $(PORT),--port $(PORT)) $(if $(KEEP),--keep)

configure: setup ## Register what FILE=... describes (STACK=build/stack.json for the local cloud, ARGS=--dry-run to look first)
	@$(RUN) -m portaria_cli $(if $(STACK),--stack-file $(STACK)) configure $(FILE) $(ARGS)

check: ## Style, types, imports, the API's document, the templates, the workflows, and no secret in any file
	@$(MAKE) --no-print-directory --jobs 3 linters
	@$(MAKE) --no-print-directory --jobs 2 style secrets template workflows document imports types

style:
	@.venv/bin/ruff format --check $(CODE)
	@.venv/bin/ruff check $(CODE)

types:
	@.venv/bin/mypy

# The contracts are in pyproject.toml.
imports:
	@.venv/bin/lint-imports --no-logo --no-cache

# `sam validate --lint` is this without .cfnlintrc, and with a second more to start.
template:
	@.venv-sam/bin/cfn-lint

workflows:
	@.venv/bin/actionlint

# Rules in .redocly.yaml. What the linter prints about itself (updates, Node's versions) is shown only if it fails.
document:
	@.venv/bin/openapi-spec-validator docs/openapi.yaml
	@log=$$(REDOCLY_SUPPRESS_UPDATE_NOTICE=true REDOCLY_TELEMETRY=off .node/node_modules/.bin/redocly lint --config .redocly.yaml --format stylish 2>&1) \
		&& echo 'docs/openapi.yaml: no findings of redocly lint' || { echo "$$log"; exit 1; }

# What tests/secret_scan.py explains is none. Nothing is looked up on the network.
secrets:
	@git ls-files -z --cached --others --exclude-standard -- ':!.secrets.baseline' \
		| xargs -0 -n 440 -P 2 .venv/bin/detect-secrets-hook --no-verify --baseline .secrets.baseline

# A group that fails stops no other one, and the summary names what failed in each.
test: check ## Everything: checks, unit, platforms, template, the local cloud, browser, short faults; a summary at the end
	@rm -rf $(REPORTS)
	@failed=0; \
	$(MAKE) --no-print-directory --keep-going --jobs $(words $(GROUPS)) $(GROUPS:%=test-%) || failed=1; \
	$(RUN) -m tests.summary --started $(STARTED) $(GROUPS:%=$(REPORTS)/%.xml) || failed=1; \
	exit $$failed

# These three only need the processor. The others also wait for what they started, so they go first. `unit` is the longest one.
test-unit:
	@nice -n 4 $(RUN) -m pytest --junit-xml $(REPORTS)/unit.xml $(UNIT)

test-offline:
	@nice $(RUN) -m pytest --junit-xml $(REPORTS)/offline.xml $(OFFLINE)

test-faults:
	@nice $(RUN) -m pytest --junit-xml $(REPORTS)/faults.xml $(FAULTS)

test-cloud:
	@$(RUN) -m pytest --junit-xml $(REPORTS)/cloud.xml $(CLOUD) $(ISOLATED:%=--ignore %)

test-isolated:
	@$(RUN) -m pytest --junit-xml $(REPORTS)/isolated.xml $(ISOLATED)

openapi: setup ## Write docs/openapi.yaml and docs/events.md anew, from the code
	@$(RUN) -m portaria.api.openapi > docs/openapi.yaml
	@$(RUN) -m portaria.api.openapi.event_document > docs/events.md

audit: setup ## Ask whether a flaw is known in what is pinned; fails where nobody could be asked
	@$(RUN) -m tests.dependency_audit

bench: setup ## Measure the published figures (NAME=cold_answer for one)
	@$(RUN) -m bench $(NAME)

faults: setup ## The long fault suites and the long fuzz of the API: about two hours
	@$(RUN) -m pytest tests/faults tests/peers tests/browser/console tests/browser/test_console_on_local_cloud.py \
		tests/stack/api/test_api_fuzz.py tests/stack/operations/test_smoke.py \
		tests/stack/flows/test_grants.py tests/stack/flows/test_credential_migration.py tests/stack/local_cloud/test_two_checkouts.py tests/stack/local_cloud/test_builds.py \
		tests/stack/local_cloud/test_local_cloud.py \
		tests/unit/access/test_private_integrations.py tests/unit/delivery/test_partial_batches.py \
		tests/unit/api/document/test_generated_client.py tests/unit/cli/stack_commands/test_configure.py --long --verbose --capture=no

portaria: setup ## Run the command line: make portaria ARGS="installs list"
	@$(RUN) -m portaria_cli $(if $(STACK),--stack-file $(STACK)) $(ARGS)

build: setup ## Build the template for this machine and the Python that make runs with
	@$(RUN) -m local.build

deploy: setup ## Deploy to the AWS account of your credentials (ENV=staging, ENV=production: see samconfig.toml)
	@$(RUN) -m local.build --environment $(ENV)
	@.venv-sam/bin/sam deploy --config-env $(ENV) $(DEPLOY_OPTIONS)
	@answer=; if [ -t 0 ] && [ -t 1 ]; then \
		printf 'Test the deployed stack $(STACK_NAME) now? One failed install and one dead letter may raise alarms. [y/N] '; read answer; \
	fi; \
	case "$$answer" in [yY]*) $(RUN) -m portaria_cli --stack-name $(STACK_NAME) smoke ;; \
	*) echo 'To test the deployed stack $(STACK_NAME): make smoke ENV=$(ENV)' ;; esac

smoke doctor: setup ## Test the deployed stack of ENV=... (smoke), or look for what is wrong with it (doctor); STACK=build/stack.json
	@$(RUN) -m portaria_cli $(if $(STACK),--stack-file $(STACK),--stack-name $(STACK_NAME)) $@ $(ARGS)

# Hashes of every file of a release, for any platform and Python. They are PyPI's: an index that pip's configuration adds is left out.
PIN := pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras --no-header --no-annotate \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host
lock: .venv/.ready ## Pin anew what requirements/*.in ask for, with hashes (some ten minutes)
	@for layer in portaria libraries; do (cd layers/$$layer && PIP_CONFIG_FILE=/dev/null ../../.venv/bin/$(PIN) requirements.in) || exit; done
	@cd requirements && for name in dev sam ministack runtime build; do PIP_CONFIG_FILE=/dev/null ../.venv/bin/$(PIN) $$name.in || exit; done

clean: ## Remove what was built and installed here
	@rm -rf .aws-sam build .venv .venv-* .node
