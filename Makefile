PYTHON ?= python3
BIN := .venv/bin
unexport PYTHONDONTWRITEBYTECODE  # else each process of the tests compiles all of them anew

.PHONY: run help test tests unit examples chaos conformance browsers pictures settings bench scale drill load smoke check audit lock clean

run: .venv/installed  ## Run the whole product on this machine, without any account
	@$(BIN)/python -m local_stack

help:  ## What there is to make
	@sed -n 's/^\([a-z]*\):.*  ## /make \1\t/p' Makefile | expand -t 18

test: .venv/installed  ## Everything that proves the product
	@$(MAKE) --no-print-directory --jobs 2 check tests

tests: .venv/installed  # five processes, also on two cores: half of the time they wait
	$(BIN)/python -m pytest -n 5 --dist loadfile --no-loadscope-reorder

unit: .venv/installed  ## The tests without servers of their own: half a minute
	$(BIN)/python -m pytest -n 2 tests/unit

examples: .venv/installed  ## Each of examples/ in place of the task: checks, unit tests, smoke, browser
	EXAMPLES=all $(BIN)/python -m pytest -n 2 --dist loadfile $(wildcard tests/*/test_examples.py)

chaos: .venv/installed  ## The same proof with thousands of everything: a quarter of an hour, one table; SEED=7
	$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED))

conformance: .venv/installed  ## All of this against what OpenAI and Upstash publish, one table: SPECS=FOLDER; WITHOUT="servers"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r tests/conformance/requirements.txt
	$(BIN)/python -m tests.conformance $(if $(SPECS),--specs $(SPECS)) $(if $(SEED),--seed $(SEED)) $(addprefix --without ,$(WITHOUT))

browsers: .venv/installed  ## The main journey in Firefox and WebKit too: a minute; with OUT=DIR, pictures of it
	$(if $(OUT),PICTURES=$(abspath $(OUT))) $(BIN)/python -m pytest tests/other_browsers

pictures: .venv/installed  ## The README's pictures; with OUT=DIR, one of every state of the page
	$(BIN)/python -m tests.screenshots $(OUT)

settings: .venv/installed  ## docs/settings.md, from the classes of the settings; docs/scale.md, from its figures
	$(BIN)/python -m docs.settings_table > docs/settings.md.new
	mv docs/settings.md.new docs/settings.md
	$(BIN)/python -m docs.scale_figures > docs/scale.md.new
	mv docs/scale.md.new docs/scale.md

smoke: .venv/installed  ## One analysis through whatever is configured, or through `make run`
	@set -a; [ ! -f .local/settings.env ] || . ./.local/settings.env; $(BIN)/python -m common task && exec $(BIN)/python -m operations.smoke

check: .venv/installed  ## The task, ruff, mypy, and who may import whom
	$(BIN)/python -m common task
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache pyproject.toml $(wildcard operations/imports.toml)

.venv/installed: requirements-dev.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

audit: .venv/installed  ## Known vulnerabilities of what is pinned; asks pypi.org
	$(BIN)/python -m pip install --quiet pip-audit
	for pinned in requirements.txt requirements-service.txt requirements-operator.txt requirements-dev.txt benchmarks/requirements.txt tests/conformance/requirements.txt; do $(BIN)/pip-audit --strict --no-deps --disable-pip -r $$pinned || exit 1; done

lock: .venv/installed  ## Pin the newest versions, and the hashes of their files, into requirements*.txt
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --upgrade pyproject.toml -o requirements.txt
	$(BIN)/uv pip compile --quiet --universal --generate-hashes -c requirements.txt --group service -o requirements-service.txt
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --upgrade -c requirements.txt --group operator -o requirements-operator.txt
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --upgrade --extra dev --group operator -c requirements-operator.txt -c requirements.txt pyproject.toml -o requirements-dev.txt
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --upgrade -c requirements-dev.txt --group bench -o benchmarks/requirements.txt
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --upgrade benchmarks/peers/requirements.in -o benchmarks/peers/requirements.txt
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --upgrade -c requirements-dev.txt --group conformance -o tests/conformance/requirements.txt
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --upgrade tests/conformance/qstash-py.in -o tests/conformance/qstash-py.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade tests/conformance/litellm.in -o tests/conformance/litellm.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.12 --generate-hashes --upgrade tests/conformance/llama-stack.in -o tests/conformance/llama-stack.txt

ifdef QUICK
COMPARE := --repetitions 1 --cases "1 s, 200" "a second"
BURST := --jobs 1000
HISTORY := --repetitions 1
GROWTH := --repetitions 1 --sizes 1000 10000
START := --repetitions 1
OPERATOR := --repetitions 1 --number 5000
POLLS := --repetitions 1 --people 50 --seconds 5 --tries 1
FELT := --turns 1 --tabs 2
COLD := --visits 1
SIZE := 300
TURNS := 1
DRILL := --rows 20000
endif

bench: .venv/installed .venv-peers/installed  ## Side by side with task queues, and all other figures: an hour; QUICK=1, some minutes: does it all run?
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
	@mkdir -p -m 700 .local
	$(BIN)/python -m benchmarks.compare $(COMPARE) --out .local/compare.json
	$(BIN)/python -m benchmarks.plot .local/compare.json $(if $(QUICK),.local,docs/reports)/performance.svg
	$(BIN)/python -m benchmarks.burst $(BURST)
	$(BIN)/python -m benchmarks.history $(HISTORY)
	$(BIN)/python -m benchmarks.growth $(GROWTH)
	$(BIN)/python -m benchmarks.start $(START)
	$(BIN)/python -m benchmarks.operator $(OPERATOR)
	$(BIN)/python -m benchmarks.page_polls $(POLLS)
	$(BIN)/python -m benchmarks.felt $(FELT)
	$(BIN)/python -m benchmarks.cold $(COLD)

.venv-peers/installed: .venv/installed benchmarks/peers/requirements.txt  # apart: one of them needs an old redis
	$(BIN)/python -m venv .venv-peers  # the same interpreter: another may be a quarter slower
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/peers/requirements.txt
	@touch $@

scale: .venv/installed  ## Two services and pages behind the proxy, replaced and killed amid 5,000 analyses: SIZE=5000, TURNS=3; QUICK=1
	$(BIN)/python -m benchmarks.scale --number $(or $(SIZE),5000) --turns $(or $(TURNS),3)

drill: .venv/installed  ## The operator's drill: millions of rows, outages, upgrades; minutes. ONLY="size outage"; QUICK=1
	@mkdir -p -m 700 .local
	$(BIN)/python -m benchmarks.drill $(DRILL) $(if $(ONLY),--only $(ONLY)) $(if $(QUICK),,--results .local/drill.json) --out $(if $(QUICK),.local,docs/reports)/drill.md

load: .venv/installed  ## Many who use the API at once: USERS=50 SECONDS=60 URL=http://127.0.0.1:3001
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
	$(BIN)/locust -f benchmarks/load.py --headless --only-summary --host $(or $(URL),http://127.0.0.1:3001) --users $(or $(USERS),50) --spawn-rate $(or $(USERS),50) --run-time $(or $(SECONDS),60)s --stop-timeout 30

clean:
	rm -rf .venv .venv-peers .local
