# The commands of the lab. A new computer needs only `make up` and `make test`; the others are parts of these.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
STACK := lab
PYTHON ?= python3
PULUMI := . ./env.sh && pulumi
QUIET := --non-interactive --suppress-permalink=true

.PHONY: help setup up preview destroy test check unit engine conformance live existing vms bench docs screenshots lock clean

help: ## show this
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/make \1|\2/' | column -t -s '|'

setup: ## prerequisites, toolchain, Python environment, stack
	@$(PYTHON) -m workspace setup --stack $(STACK)

up: setup ## show what changes, and create or update the lab
	@$(PULUMI) up --stack $(STACK) --yes $(QUIET)
	@. ./env.sh && lab --stack $(STACK) welcome

preview: setup ## show what `make up` would change
	@$(PULUMI) preview --stack $(STACK) --diff $(QUIET)

destroy: setup ## remove the lab from its hosts
	@# With a preview, which refuses to delete protected work before anything is deleted.
	@$(PULUMI) destroy --stack $(STACK) --yes $(QUIET)

test: setup ## everything: lint, types, unit, preview, engine and live tests; leaves nothing running
	@tests/run.sh

check: setup ## lint and types
	@tests/check.sh

unit: setup ## the unit tests, and the program under mocks
	@tests/prerequisites.sh
	@. ./env.sh && pytest tests/unit tests/preview

engine: setup ## previews of labs from nothing, with the real Pulumi engine
	@$(PYTHON) -m workspace ebpf
	@. ./env.sh && pytest tests/engine

conformance: setup ## the Docker driver on Debian's engine and on a current one
	@tests/prerequisites.sh
	@tests/conformance.sh

live: up ## the live tests on a running lab
	@$(PYTHON) -m workspace ebpf
	@. ./env.sh && pytest tests/live

existing: setup ## labs of hosts that exist already, on bare systemd containers
	@$(PYTHON) -m workspace ebpf
	@$(PYTHON) -m workspace current-engine
	@. ./env.sh && pytest tests/existing

vms: setup ## the lab on two virtual machines: WireGuard, another kernel, real reboots
	@$(PYTHON) -m workspace ebpf
	@. ./env.sh && pytest tests/vms

bench: setup ## measure the lab relative to its references
	@tests/prerequisites.sh
	@. ./env.sh && python -m bench

docs: setup ## write the parts of docs/ that come from the code
	@. ./env.sh && python -m config.reference

screenshots: up ## take the pictures of docs/images/ from a class on a running lab
	@tests/prerequisites.sh
	@. ./env.sh && folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	    CALICO_LAB_SCREENSHOTS=$$folder pytest tests/live/test_86_browser.py && cp "$$folder"/*.png docs/images/

lock: setup ## pin the newest versions that requirements.in allows
	@$(PYTHON) -m workspace lock

clean: ## destroy the lab and remove what setup made in this checkout (not the shared cache)
	@$(PYTHON) -m workspace clean --stack $(STACK)
