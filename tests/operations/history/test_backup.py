"""What the guide says of keeping the history: its commands and numbers."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import redis

from common.store import NotFound
from operations.history.connections import MAX_CONNECTIONS
from operations.history.database import Database
from operations.history.migrations import VERSION_TABLE
from tests.conftest import NEIGHBOURS, make_store
from tests.documents import section
from tests.fakes import ID, OTHER_ID
from tests.operations.history.histories import completed, settings_for
from tests.postgres import Postgres, find_binaries
from tests.processes import ROOT, bare_environment, python_path
from tests.zygote import Zygote

GUIDE = (ROOT / "docs" / "operating.md").read_text()
BACK_UP, RESTORE, BY_THE_LOG, BY_THE_DATABASE = re.findall(
    r"(?ms)^ *```sh\n(.*?)^ *```", section(GUIDE, "Backup and restore")
)


class Machine:
    """A shell of the operator's, with the deployment's settings."""

    def __init__(self, directory: Path, code: Path = ROOT, **settings: str) -> None:
        self.directory, self.log = directory, directory / "operator.log"
        self.environment = bare_environment(directory, **(NEIGHBOURS | settings))
        found = Path(sys.executable).parent, find_binaries(), self.environment["PATH"]
        self.environment["PATH"] = ":".join(map(str, found))
        self.environment["PYTHONPATH"] = python_path(code)

    def run(self, command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        with self.log.open("a") as log:
            return subprocess.run(
                ["sh", "-c", command],
                cwd=self.directory,
                env=self.environment | variables,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                timeout=60,
                check=False,
            )


def test_restored_copies_bring_nothing_back_that_was_erased_since(
    postgres: Postgres,
    rows: psycopg.Connection,
    real_redis: redis.Redis,
    valkey: str,
    tmp_path: Path,
) -> None:
    machine = Machine(tmp_path, REDIS_URL=valkey, DATABASE_URL=postgres.url)
    store, database = make_store(real_redis), Database(settings_for(postgres.url))
    database.write_many([completed(), completed(request_id=OTHER_ID)])
    store.create(completed())
    (key,) = real_redis.keys("analysis:*")
    copy = str(real_redis.get(key))
    assert machine.run(BACK_UP).returncode == 0
    assert machine.run(f"python -m operations delete {ID}").stdout == f"{ID} deleted\n"

    for number, again in enumerate((BY_THE_LOG, BY_THE_DATABASE)):
        rows.execute(f"CREATE DATABASE restored_{number}")
        new = postgres.url.replace("/postgres", f"/restored_{number}")
        restored = Database(settings_for(new))
        assert machine.run(RESTORE, NEW_DATABASE_URL=new).returncode == 0
        real_redis.set(key, copy)
        assert restored.find(ID) == store.read(ID), "it would be read, but for the next step"

        addresses = {"NEW_DATABASE_URL": new, "OLD_DATABASE_URL": postgres.url}
        erased = machine.run(again, LOGS=str(machine.log), **addresses)

        assert f"{ID} deleted\n" in erased.stdout
        restored.write(completed())  # a delivery that was on its way, or `save`
        for find in (store.read, restored.find):
            with pytest.raises(NotFound):
                find(ID)
        assert restored.find(OTHER_ID)


def test_the_version_before_reads_the_history_again_once_it_is_told_to(
    postgres: Postgres, rows: psycopg.Connection, tmp_path: Path, zygote: Zygote
) -> None:
    """The same program without its last migration, which knows nothing of it."""
    before = tmp_path / "before"
    for folder in ("common", "operations"):
        shutil.copytree(ROOT / folder, before / folder)
    newest, older = sorted(before.glob("operations/history/migrations/versions/*.py"))[:-3:-1]
    newest.unlink()
    Database(settings_for(postgres.url)).write(completed())
    (newer,) = rows.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone() or ()
    machine = Machine(tmp_path, before, DATABASE_URL=postgres.url)
    (set_version,) = re.findall(r"(?ms)^```sh\n(.*?)^```", section(GUIDE, "Upgrading"))
    program = (
        "from operations.settings import OperationsSettings as Settings;"
        f"from operations.history.database import Database; Database(Settings()).find('{ID}')"
    )

    def read() -> subprocess.CompletedProcess[str]:
        return zygote.run(["-c", program], tmp_path, machine.environment)

    too_new = read()
    assert too_new.returncode == 1
    assert f"has version {newer} of the schema" in too_new.stderr
    assert machine.run(set_version, OLDER=older.name[1:5]).returncode == 0
    assert read().returncode == 0

    assert machine.run(set_version, OLDER=newer).returncode == 0
    assert Database(settings_for(postgres.url)).find(ID)


def test_the_guide_counts_the_connections_that_a_process_opens() -> None:
    assert f"A process opens at most {MAX_CONNECTIONS} connections" in GUIDE
    assert f"\n{MAX_CONNECTIONS} × (4 for each service" in GUIDE
