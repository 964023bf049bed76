PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test chaos bench-page smoke check audit lock clean

run: .venv/installed  ## Run the whole product on this machine, without any account
	@$(BIN)/python -m local_stack

test: check  ## Everything that proves the product
	$(BIN)/python -m pytest

chaos: .venv/installed  ## The same proof with thousands of everything: some minutes, one table
	$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED))

smoke: .venv/installed  ## One analysis through whatever is configured, or through `make run`
	@set -a; [ ! -f .local/settings.env ] || . ./.local/settings.env; exec $(BIN)/python -m webhook_service.smoke

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/installed: requirements-dev.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

audit: .venv/installed  ## Known vulnerabilities of what is pinned; asks pypi.org
	$(BIN)/python -m pip install --quiet pip-audit
	for pinned in requirements.txt requirements-service.txt requirements-operator.txt requirements-dev.txt; do $(BIN)/pip-audit --strict --no-deps --disable-pip -r $$pinned || exit 1; done

lock: .venv/installed  ## Pin the newest versions into requirements*.txt
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --upgrade pyproject.toml -o requirements.txt
	$(BIN)/uv pip compile --quiet --universal -c requirements.txt --group service -o requirements-service.txt
	$(BIN)/uv pip compile --quiet --universal -c requirements.txt --group operator -o requirements-operator.txt
	$(BIN)/uv pip compile --quiet --universal --upgrade --extra dev --group operator -c requirements.txt pyproject.toml -o requirements-dev.txt

bench-page: .venv/installed  ## What waiting people cost the page's process (about 15 minutes)
	$(BIN)/python -m benchmarks.page_polls

clean:
	rm -rf .venv .local
