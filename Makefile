# `make help` says what there is.
SHELL := /bin/sh
.SHELLFLAGS := -eu -c
MAKEFLAGS += --no-print-directory --warn-undefined-variables
.DEFAULT_GOAL := help

PYTHON ?=
EVENTS ?=
RESUME ?=
ARGS ?=
SECONDS ?= 600
KILLS ?= 200

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check
INSTALL := $(PIP) --require-hashes --only-binary :all:
INSTALL_PROJECT := PYTHONWARNINGS=ignore $(PIP) --no-index --no-deps --no-build-isolation --editable .
CODE := flows operators connectors $(wildcard benchmarks observability) tests
PYENV := "$${PYENV_ROOT:-$${HOME:-}/.pyenv}"
SUITABLE := import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))

.PHONY: help
help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: $(VENV)/.runtime ## the main job in a folder below runs/, then its report (EVENTS="file or folder ...", or RESUME=1)
	@$(PY) -m flows.run $(if $(filter-out 0 no,$(RESUME)),--resume) $(if $(strip $(EVENTS)),--events $(EVENTS))

.PHONY: demo
demo: $(VENV)/.runtime ## simulated services, the flow on them, and its alerts as they come, on the terminal (ARGS for flows.demo)
	@$(PY) -m flows.demo $(ARGS)

COVERED := $(PY) -m coverage run -m pytest
PURE := tests/operators tests/contracts
WHOLE := tests/benchmarks tests/chaos tests/integration
LEFT_OUT := build/left_out

.PHONY: test
test: $(VENV)/.dev ## all tests that this machine can run, with coverage; says at the end what was left out
	@rm -f .coverage .coverage.* $(LEFT_OUT); mkdir -p build; touch $(LEFT_OUT)
	@failed=0; \
	$(MAKE) -j2 -k test-whole test-parts test-pure test-uncompiled || failed=$$?; \
	for part in parts pure uncompiled; do echo "build/test-$$part.log:"; cat build/test-$$part.log; done; \
	exit $$failed
	@$(PY) -m coverage combine --quiet
	@$(PY) -m coverage report --fail-under=85
	@printf 'operators alone, per cent: '
	@$(PY) -m coverage report --fail-under=95 --include='operators/*' --format=total
	@if [ -s $(LEFT_OUT) ]; then echo "left out:"; cat $(LEFT_OUT); else echo "left out: nothing"; fi

# Two of them run at a time, in the order in which `test` names them. Whole flows run without coverage, which would
# take up to half of their time. The pure part runs again uncompiled, so that the branches of its loops are counted.
.PHONY: test-whole test-parts test-pure test-uncompiled
test-whole test-parts test-pure test-uncompiled: export PYTHONDONTWRITEBYTECODE =
test-whole test-parts test-pure: export LLMS_TEST_SUMMARY = $(LEFT_OUT)
test-uncompiled: export NUMBA_DISABLE_JIT = 1
test-whole:
	@$(PY) -m pytest $(WHOLE)
test-pure:
	@$(COVERED) -q -p no:cacheprovider $(PURE) >build/$@.log 2>&1
test-parts:
	@$(COVERED) -q -p no:cacheprovider $(PURE:%=--ignore=%) $(WHOLE:%=--ignore=%) >build/$@.log 2>&1
test-uncompiled:
	@$(COVERED) -q -p no:cacheprovider --hypothesis-profile=uncompiled -m 'not compiled' tests/operators >build/$@.log 2>&1

.PHONY: chaos
chaos: $(VENV)/.dev .services/kafka/.ready ## fifty kills of a cluster on Apache Kafka, and what else goes wrong; what was lost or doubled (ARGS for tests.chaos.storm)
	@$(PY) -m tests.chaos.storm $(ARGS)

.PHONY: nightly
nightly: $(VENV)/.dev .services/kafka/.ready ## the long forms: storms on one folder and on volumes, kills at every moment of starts, a soak (KILLS, SECONDS)
	@failed=0; mkdir -p build; \
	$(PY) -m tests.chaos.storm --kills $(KILLS) || failed=1; \
	$(PY) -m tests.chaos.storm --kills $(KILLS) --volumes --seed 2 || failed=1; \
	LLMS_TEST_LONG=1 $(PY) -m pytest -q tests/chaos || failed=1; \
	$(PY) -m benchmarks.soak --seconds $(SECONDS) --plot build/soak.svg || failed=1; \
	exit $$failed

.PHONY: soak
soak: $(VENV)/.dev .services/kafka/.ready ## half of top speed for ten minutes: is memory flat, the lag bounded (SECONDS, ARGS for benchmarks.soak)
	@$(PY) -m benchmarks.soak --seconds $(SECONDS) --plot docs/soak.svg $(ARGS)

.PHONY: check
check: $(VENV)/.dev ## lint, format, types, architecture, documents, manifests; sbom and audit
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy $(CODE)
	@$(PY) -m pytest -q tests/test_architecture.py tests/test_docs.py tests/test_k8s.py tests/test_compose.py \
		tests/test_makefile.py
	@$(MAKE) sbom audit

.PHONY: sbom
sbom: $(VENV)/.dev ## the bill of materials of the image's packages, as CycloneDX: build/sbom.cdx.json
	@mkdir -p build
	@$(PY) -W ignore -m cyclonedx_py requirements --pyproject pyproject.toml --output-reproducible --validate \
		--output-file build/sbom.cdx.json requirements.lock

.PHONY: audit
audit: $(VENV)/.dev ## known vulnerabilities of the image's packages; says so where no database can be reached
	@$(PY) -m tests.audit requirements.lock

.PHONY: docs
docs: $(VENV)/.dev ## make anew what is generated from code: references, the example of settings, the PrometheusRule
	@$(PY) -m flows.check --example > sentinel.example.toml
	@$(PY) -m flows.check --reference > docs/configuration.md
	@$(PY) -m flows.check --metrics > docs/metrics.md
	@$(PY) -m flows.check --detectors > docs/detectors.md
	@$(PY) -m flows.formats > docs/formats.md
	@$(PY) -m flows.conventions > docs/conventions.md
	@$(PY) -m observability.prometheus_rule > k8s/monitoring/prometheusrule.yaml

.PHONY: dashboards
dashboards: $(VENV)/.dev ## make the JSON in observability/grafana/dashboards anew from the code beside it
	@$(PY) -m observability.grafana.make

.PHONY: services
services: .services/kafka/.ready .services/kustomize .services/compose-spec.json ## what tests need that is no wheel: Kafka (by Java and Maven), Chromium, kustomize (by Go), Prometheus, a C compiler
	@if ! command -v cc >/dev/null; then \
		if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
			echo "A C compiler is needed for clocks that tests set: install one, then make services again" >&2; exit 1; \
		fi; \
		apt-get update -qq; \
		DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends gcc libc6-dev >/dev/null; \
	fi
	@if ! command -v chromium >/dev/null && ! command -v chromium-browser >/dev/null; then \
		if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
			echo "Chromium is needed to look at the report: install it, then make services again" >&2; exit 1; \
		fi; \
		apt-get update -qq; \
		DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium fonts-dejavu-core >/dev/null; \
	fi
	@if ! command -v prometheus >/dev/null || ! command -v promtool >/dev/null; then \
		if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
			echo "Prometheus is needed to test its rules: install it (with promtool), then make services again" >&2; exit 1; \
		fi; \
		apt-get update -qq; \
		DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends prometheus >/dev/null; \
	fi

.PHONY: lock
lock: $(VENV)/.dev ## make the lock files anew from pyproject.toml
	@$(PIP) 'uv>=0.13,<1'
	@$(PY) -m uv pip compile $(COMPILE) --upgrade --extra otel --output-file requirements.lock pyproject.toml
	@$(PY) -m uv pip compile $(COMPILE) --upgrade --extra dev --constraints requirements.lock --output-file requirements-dev.lock pyproject.toml
	@$(PY) -m uv pip compile $(COMPILE) --upgrade --group build --output-file requirements-build.lock
COMPILE := --quiet --universal --python-version 3.11 --fork-strategy fewest --generate-hashes --no-emit-index-url \
	--no-header --no-annotate

.PHONY: clean
clean: ## remove what can be made again; runs/ stays
	@rm -rf $(VENV) .services .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.* *.egg-info build
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.python:
	@for python in $(PYTHON) python3.11 python3.12 python3 python \
		$(PYENV)/versions/3.11.*/bin/python $(PYENV)/versions/3.12.*/bin/python; do \
		if "$$python" -c '$(SUITABLE)' 2>/dev/null; then \
			rm -rf $(VENV); "$$python" -m venv $(VENV); touch $@; exit 0; \
		fi; \
	done; \
	echo "Python 3.11 or 3.12 with its venv module is needed, since Bytewax has no packages for others: install one" \
		"(on Debian 12: apt-get install python3 python3-venv) or name it with PYTHON=..." >&2; \
	exit 1

$(VENV)/.runtime: requirements.lock requirements-build.lock pyproject.toml $(VENV)/.python
	@echo "Installing the pinned packages and the command llm-sentinel into $(VENV), once ..."
	@$(INSTALL) -r $< -r requirements-build.lock
	@$(INSTALL_PROJECT)
	@touch $@

$(VENV)/.dev: requirements-dev.lock requirements-build.lock pyproject.toml $(VENV)/.python
	@echo "Installing the pinned packages and tools and the command llm-sentinel into $(VENV), once ..."
	@$(INSTALL) -r $< -r requirements-build.lock
	@$(INSTALL_PROJECT)
	@touch $@ $(VENV)/.runtime

.services/kafka/.ready: services/pom.xml
	@if ! command -v java >/dev/null || ! command -v mvn >/dev/null; then \
		if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
			echo "Java 17 and Maven are needed for Apache Kafka: install them, then make services again" >&2; exit 1; \
		fi; \
		apt-get update -qq; \
		DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends openjdk-17-jre-headless maven >/dev/null; \
	fi
	@echo "Fetching Apache Kafka into .services, once ..."
	@rm -rf .services/kafka/libs
	@mvn --quiet --batch-mode --file services/pom.xml dependency:copy-dependencies
	@touch $@

# Versions that Debian's Go, which is old, can still build.
.services/go:
	@if ! command -v go >/dev/null; then \
		if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
			echo "Go 1.19 or newer is needed to build kustomize: install it, then make services again" >&2; exit 1; \
		fi; \
		apt-get update -qq; \
		DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends golang-go ca-certificates >/dev/null; \
	fi
	@mkdir -p .services
	@touch $@

.services/kustomize: | .services/go
	@echo "Building kustomize into .services, once ..."
	@GOBIN="$$PWD/.services" go install sigs.k8s.io/kustomize/kustomize/v5@v5.0.3

# The schema of the Compose specification, as its reference implementation carries it.
.services/compose-spec.json: | .services/go
	@folder=$$(go mod download -json github.com/compose-spec/compose-go/v2@v2.16.2 | sed -n 's/.*"Dir": "\(.*\)".*/\1/p'); \
		install -m 644 "$$folder/schema/compose-spec.json" $@
