# flyball: every target sets up what it needs in .venv/. `make help` lists them.
PYTHON ?= python3
VENV := .venv
export TEST_PROCESSES ?= 2
BIN := $(VENV)/bin
# mosquitto and friends lie there; not on an unprivileged user's PATH
export PATH := $(PATH):/usr/sbin:/usr/local/sbin
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo test check bench kills kills-uplink fuzz deb hil try-fresh clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

setup:  ## .venv/ with Flyball and its runtimes
	@packaging/setup.sh run

setup-dev:
	@packaging/setup.sh dev

demo: setup  ## a daemon, a ladder and a load you can watch (DEMO_ARGS="--seconds 60" to bound it)
	@$(BIN)/flyball demo $(DEMO_ARGS)

test: setup-dev  ## every test, two files at a time (TEST_ARGS="tests/engine -x" to choose, TEST_PROCESSES=0 for one)
	@packaging/setup.sh mosquitto
	packaging/test.sh $(TEST_ARGS)
	@if [ "$$FLYBALL_STRICT_SKIPS" = 1 ]; then $(BIN)/python packaging/skips.py tests/expected_skips.txt build/tests.xml build/alone.xml; fi

check: setup-dev  ## ruff, mypy --strict, import contracts, shellcheck where it is installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=bench:tests:tests/sensing:tests/uplink $(BIN)/mypy --follow-imports=silent bench/*.py
	$(BIN)/lint-imports
	packaging/floors.sh
	@if command -v shellcheck >/dev/null; then shellcheck .ci/run packaging/*.sh; \
	else echo "shellcheck is not installed: shell scripts unchecked"; fi

bench: setup-dev  ## the headline figures (BENCH_ARGS=...)
	$(BIN)/python -m bench $(BENCH_ARGS)

kills: setup-dev  ## 1,000 workers killed under traffic, about 10 minutes; commits bench/kills.json
	$(BIN)/python bench/kills.py --write

kills-uplink: setup-dev  ## 1,000 devices killed under orders, about 15 minutes; commits bench/kills_uplink.json
	@packaging/setup.sh mosquitto
	$(BIN)/python bench/kills_uplink.py --write

fuzz: setup-dev  ## every decoder that reads bytes from strangers, 10 minutes (x86-64; first: .venv/bin/pip install -e '.[fuzz]')
	$(BIN)/python bench/fuzz/run.py $(FUZZ_ARGS)

deb: setup  ## build/flyball_<version>_<architecture>.deb
	@packaging/build-deb.sh

hil: setup-dev  ## the five checks against a target (HIL_ARGS="--target ssh://root@board --report hil.json")
	$(BIN)/python -m pytest hil $(HIL_ARGS)

try-fresh:  ## root only: the README's commands in a fresh minimal Debian
	packaging/try-fresh.sh

clean:  ## .venv/, build/ and every cache
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
