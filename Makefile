# Two commands do everything on a machine with Python 3.11–3.13, pip and a package registry:
#   make run    the gateway with the shipped bundle and emulated providers on 127.0.0.1:8080
#   make test   every check: lint, types, import contracts, tests
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN = $(VENV)/bin
LOCK = deploy/lock
CLIENTS = $(VENV)-clients/.done $(VENV)-clients-older/.done
NODE_CLIENTS = $(patsubst %,tests/clients/node/%/node_modules/.done,sdk agents)
TORCH = torch==2.13.0
UV = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate

# The environments of the tests do not depend on each other; most of their making is waiting.
MAKEFLAGS += --jobs=3

.PHONY: run test test-checks test-clients test-serving test-others clients clients-all fuzz fix train-sample notebooks encoder lock clean benchmark-routing loop-demo

run: $(VENV)/.serve
	$(BIN)/turnout serve

# Clients are programs that mostly wait, so the other tests and the checks that run nothing go on beside them.
test: $(VENV)/.encoder $(CLIENTS)
	+$(MAKE) --no-print-directory --output-sync=target test-checks test-clients test-serving test-others

test-checks:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test-clients:
	$(BIN)/python -m pytest tests/clients

test-serving:
	$(BIN)/python -m pytest tests/serving

test-others:
	$(BIN)/python -m pytest --ignore=tests/clients --ignore=tests/serving

# The client packages people use, unchanged, through a gateway before emulated providers of every dialect.
clients: $(VENV)/.dev $(CLIENTS)
	$(BIN)/python -m pytest -m clients tests/clients

# The same with the clients that need Node 20 and npm: two packages, and the command-line agents (a gigabyte).
clients-all: $(NODE_CLIENTS)
	$(MAKE) clients

# Spoilt provider streams through every client API; a slice of it is among the tests. ARGS='--only N' shows one case.
fuzz: $(VENV)/.dev
	$(BIN)/python tests/fuzz/streams.py --cases 200000 --seed 1 $(ARGS)

train-sample: $(VENV)/.dev
	$(BIN)/turnout train --data datasets/samples/checkable --out models/sample/1

# Runs every notebook on the data its DATA names (the sample) and leaves build/notebooks/*.html, which need no network.
notebooks: $(VENV)/.notebooks
	$(BIN)/jupyter nbconvert --execute --to html --embed-images --output-dir build/notebooks \
		--HTMLExporter.mathjax_url= --HTMLExporter.require_js_url= notebooks/*.ipynb

# Every router on the same rows; without DATA's tables it can be tried with DATA=datasets/samples/checkable.
benchmark-routing: $(VENV)/.dev
	$(BIN)/python benchmarks/routing --data $(or $(DATA),../shared/data) $(ARGS)

# Serve, notice that the world changed, label, retrain, gate, shadow, compare, promote: about ten minutes.
loop-demo: $(VENV)/.dev
	$(BIN)/python benchmarks/loop $(ARGS)

fix: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.python:
	@test -n "$(PYTHON)" || { echo "Turnout needs Python 3.11, 3.12 or 3.13; none was found. Name one: make PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.serve: $(VENV)/.python $(LOCK)/serve.txt pyproject.toml
	$(BIN)/python -m pip install --quiet --require-hashes -r $(LOCK)/serve.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.dev: $(VENV)/.python $(LOCK)/dev.txt pyproject.toml
	$(BIN)/python -m pip install --quiet --require-hashes -r $(LOCK)/dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.notebooks: $(VENV)/.dev $(LOCK)/notebooks.txt
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r $(LOCK)/notebooks.txt
	touch $@

# Client packages must be had as their users have them, and not all of them can be installed beside each other.
$(VENV)-%/.done: $(LOCK)/%.txt $(VENV)/.python
	$(BIN)/python -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet --no-compile --require-hashes -r $<
	touch $@

%/node_modules/.done: %/package-lock.json
	cd $* && npm ci
	touch $@

# The tests of `turnout encoder export` need torch. It stands outside the lock, since the right build depends on the machine; where
# pip would bring the CUDA one (gigabytes) it is left out and those tests are skipped, saying so.
$(VENV)/.encoder: $(VENV)/.dev $(LOCK)/encoder.txt
	@if $(BIN)/python -m pip install --dry-run --quiet --no-deps --report - $(TORCH) 2>/dev/null \
		| $(BIN)/python -c 'import json, sys; v = json.load(sys.stdin)["install"]; sys.exit(bool(v) and sys.platform == "linux" and "+cpu" not in v[0]["metadata"]["version"])'; \
	then echo "installing $(TORCH) for the encoder tests"; \
		$(BIN)/python -m pip install --quiet --no-deps $(TORCH) && \
		$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r $(LOCK)/encoder.txt; \
	else echo "pip offers no CPU build of $(TORCH) here: the encoder export tests will be skipped ('make encoder' installs it anyway)"; fi
	touch $@

encoder: $(VENV)/.dev
	$(BIN)/python -m pip install $(TORCH)
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r $(LOCK)/encoder.txt

# Pins with hashes and without any index or download address; uv resolves for every supported Python at once.
lock:
	$(BIN)/python -m pip install --quiet uv
	$(UV) pyproject.toml $(LOCK)/build.in -o $(LOCK)/serve.txt
	$(UV) --extra dev pyproject.toml $(LOCK)/build.in -o $(LOCK)/dev.txt
	$(UV) --constraint $(LOCK)/dev.txt $(LOCK)/notebooks.in -o $(LOCK)/notebooks.txt
	$(UV) $(LOCK)/clients.in -o $(LOCK)/clients.txt
	$(UV) $(LOCK)/clients-older.in -o $(LOCK)/clients-older.txt
	$(UV) --override $(LOCK)/no-torch.in --no-emit-package torch --constraint $(LOCK)/dev.txt $(LOCK)/encoder.in -o $(LOCK)/encoder.txt

clean:
	rm -rf $(VENV) $(VENV)-* tests/clients/node/*/node_modules .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build *.egg-info
