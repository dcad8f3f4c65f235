"""A PostgreSQL server that the tests start themselves, from the programs that are installed."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

PLACES = ("/usr/lib/postgresql/*/bin", "/usr/local/pgsql/bin", "/opt/homebrew/opt/postgresql*/bin")
ACCOUNTS = ("postgres", "nobody")


class PostgresServer:
    """A server in a folder of its own, which listens on this machine only."""

    def __init__(self, programs: Path, folder: Path, account: str | None) -> None:
        self.programs = programs
        self.folder = folder
        self.account = account
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def url(self, database: str) -> str:
        """The address of a new, empty database."""
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "tester", database)
        return f"postgresql://tester@127.0.0.1:{self.port}/{database}"

    def create(self) -> None:
        """Make its files."""
        self._run("initdb", "-D", str(self.folder / "data"), "-U", "tester", "--auth=trust", "--no-sync")

    def start(self) -> None:
        """Begin to answer."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        self._control("start", "-l", str(self.folder / "log"), "-o", options)

    def stop(self) -> None:
        """At once, as in a crash; connections are cut."""
        self._control("stop", "-m", "immediate")

    def freeze(self) -> None:
        """Have all of its processes stand still: connections stay open, and nothing is answered."""
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Have them go on."""
        self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> None:
        for process in self._processes():
            with suppress(ProcessLookupError):  # a connection that has just been closed
                os.kill(process, number)

    def _processes(self) -> list[int]:
        """The server's own, and one a connection."""
        first = int((self.folder / "data" / "postmaster.pid").read_text(encoding="utf-8").split()[0])
        found = [first]
        for place in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(place.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1])
            except OSError:  # it has ended meanwhile
                continue
            if parent == first:
                found.append(int(place.parent.name))
        return found

    def _control(self, *arguments: str) -> None:
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-w", *arguments)

    def _run(self, program: str, *arguments: str) -> None:
        command: Sequence[str] = [str(self.programs / program), *arguments]
        if self.account is not None:  # the server refuses to run as root
            user = pwd.getpwnam(self.account)
            command = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", *command]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd="/", check=False
        )
        assert done.returncode == 0, f"{program}: {done.stderr.decode(errors='replace')}"


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """A server until the end of the block; without the programs the test is skipped, in CI it fails."""
    programs = _programs()
    if programs is None:
        message = "PostgreSQL is NOT TESTED: install Debian's package `postgresql`, or put `initdb` on the PATH."
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    folder = Path(tempfile.mkdtemp(prefix="detector-postgres-"))
    account = None
    if os.geteuid() == 0:
        known = {entry.pw_name for entry in pwd.getpwall()}
        account = next(name for name in ACCOUNTS if name in known)
        shutil.chown(folder, account)
    server = PostgresServer(programs, folder, account)
    try:
        server.create()
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path | None:
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    for place in PLACES:
        for folder in sorted(Path("/").glob(place.lstrip("/"))):
            if (folder / "initdb").exists():
                return folder
    return None
