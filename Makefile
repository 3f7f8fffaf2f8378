# One command each. Everything lives in .venv; nothing outside this directory is touched, except that `setup`, when run
# as root on Debian or Ubuntu, installs the missing build packages through apt.

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint compiled bench compare growth mutants soak matrix wheels clients site format clean

BIN := .venv/bin
READY := .venv/.ready
COMPILED := .venv/.compiled
# Options for the demo and for pytest, for example: make demo DEMO_FLAGS='--clients 200'; make test PYTEST_FLAGS='-x -q'
# and for measuring: make bench BENCH_FLAGS='/mnt/disk --quick'
DEMO_FLAGS ?=
PYTEST_FLAGS ?=
BENCH_FLAGS ?=
# More test processes than processors: many tests wait for disks, elections and child processes
WORKERS ?= $(shell echo $$((2 * $$(nproc) + 2)))
# How long `make soak` explores
SECONDS ?= 600

# Compiled modules are kept, also where the environment forbids it: the tests start hundreds of interpreters, and each would
# compile the package again.
export PYTHONDONTWRITEBYTECODE :=
# Freed memory is kept for the next test: on a virtual machine the first use of a page costs more than filling it.
export MALLOC_TRIM_THRESHOLD_ := 67108864
export MALLOC_MMAP_THRESHOLD_ := 16777216

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## create .venv with walsvc and all tools (done by the others where needed)

# Set up again when the dependencies, the set-up itself or the C part change.
$(READY): pyproject.toml $(wildcard setup.py walsvc/disk/*_build.py walsvc/disk/*.c walsvc/disk/*.h walsvc/log/commit/*.c) scripts/setup.sh
	@sh scripts/setup.sh
	@touch $@

demo: $(READY) ## a webhook gateway under 1,000 clients, killed in the middle: is every answered event there?
	@$(BIN)/python examples/webhook_gateway/run.py $(DEMO_FLAGS)

test: $(READY) ## everything that CI checks
	@$(MAKE) --no-print-directory -j2 --output-sync=target lint compiled
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_FLAGS)

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

# One process compiles the tests, while mypy has the other processor: else each test process would compile all of them.
compiled: $(COMPILED)

$(COMPILED): $(READY) $(shell find tests walsvc bench -name '*.py')
	@told=$$($(BIN)/python -m pytest --collect-only -qq 2>&1) || { echo "$$told" | tail -n 50; exit 1; }
	@touch $@

bench: $(READY) ## the targets P1 to P12 against this device and asyncio
	$(BIN)/python -m bench limits $(BENCH_FLAGS)
	$(BIN)/python -m bench plot

compare: $(READY) ## beside every alternative; the first time, installs them into bench/peers/.env
	PYTHON=$(abspath $(BIN)/python) sh bench/peers/install.sh
	$(BIN)/python -m bench compare $(BENCH_FLAGS)
	$(BIN)/python -m bench plot

growth: $(READY) ## append, open, seek and memory as a log grows
	$(BIN)/python -m bench growth $(BENCH_FLAGS)
	$(BIN)/python -m bench plot

mutants: $(READY) ## plant bugs, one at a time, and print which test notices each
	@$(BIN)/python -m tests.mutants

soak: $(READY) ## whole campaigns, then crashes on the simulated disk, and all calls at once, for SECONDS=600 each; other seeds every time
	@WALSVC_CAMPAIGN=whole $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal tests/crash $$(grep -rl 'crash.sampling import' tests --include='test_*.py' --exclude-dir=crash)
	@$(BIN)/python -m tests.crash.explore --seconds $(SECONDS)
	@$(BIN)/python -m tests.crash.everyone --seconds $(SECONDS)

format: $(READY) ## format the sources and fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

matrix: ## the suite on each CPython that is installed, with the parts in C and with their twins, and a summary
	@WORKERS=$(WORKERS) sh scripts/matrix.sh $(PYTEST_FLAGS)

wheels: ## the sdist and wheels for each CPython that is installed (aarch64's, too), tried in empty environments; into dist/
	@sh scripts/wheels.sh

clients: $(READY) ## examples/clients in Go, Java, Node and Python against a log, where their tools are
	@WALSVC_CLIENTS=1 $(BIN)/python -m pytest -v tests/redis/test_clients.py

site: $(READY) ## the documents as a site, into site/, every link checked
	@test -x .site/bin/mkdocs || { $(BIN)/python -m venv .site && .site/bin/pip install -q mkdocs-material 'mkdocstrings[python]' ruff; }
	@sh scripts/mermaid.sh
	@NO_MKDOCS_2_WARNING=1 .site/bin/mkdocs build --strict --quiet && echo "site/index.html"

clean: ## remove everything that was built or measured here
	rm -rf .venv .matrix .wheels .site site build dist *.egg-info demo-data .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	rm -f walsvc/disk/*.so walsvc/log/commit/*.so walsvc/disk/_uring.c
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
