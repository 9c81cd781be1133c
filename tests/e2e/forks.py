"""A process that has imported what commands need, and is copied for each: a command begins without the seconds that imports take.

Run as a script it is that process: for each line of JSON on stdin (`Forks.start`) it starts a command.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

IMPORTED = ("cli", "errors", *(f"pipeline.{name}" for name in ("audit_run", "change", "nightly", "releases", "run")), "people.enrol")


class Forked:
    """A command that was begun: as much of `subprocess.Popen` as tests use."""

    def __init__(self, args: Sequence[str], pid: int, code: Path) -> None:
        self.args, self.pid = list(args), pid
        self.returncode: int | None = None
        self._code = code

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""
        if self.returncode is None:
            with contextlib.suppress(FileNotFoundError):
                self.returncode = int(self._code.read_text())
        return self.returncode

    def wait(self, timeout: float = 60.0) -> int:
        """Its exit code, once it has ended."""
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(self.args, timeout)
            time.sleep(0.01)
        return code

    def kill(self) -> None:
        """Ends it at once."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # nobody has its id by now: it ended a moment ago
                os.kill(self.pid, signal.SIGKILL)


class Forks:
    """Starts commands. Close it in the end.

    Args:
        env: of the process that has imported what they need; Ray reads its token then.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        command = [sys.executable, "-P", __file__]  # its folder is not one to import from, neither here nor in Ray's workers
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(env))

    def start(self, args: Sequence[str], out: Path, err: Path, env: Mapping[str, str]) -> Forked:
        """Begins `mfmc` with these arguments, its output in files."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        code = out.with_suffix(".code")
        asked = {"args": list(args), "out": str(out), "err": str(err), "env": dict(env), "code": str(code)}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return Forked(args, int(self._process.stdout.readline()), code)

    def close(self) -> None:
        """Ends the process that commands are copied from; they go on."""
        self._process.communicate()


def _serve() -> None:
    for name in IMPORTED:
        __import__(f"mfmc_ray.{name}")
    gc.freeze()  # what is not looked through is not copied
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the waiting ones
    for line in sys.stdin:
        if os.fork() == 0:
            _wait_for_command(json.loads(line))
            return


def _wait_for_command(asked: dict[str, object]) -> None:
    """Starts a command, says its process id, and notes how it ended. Returns in the command's own process."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        _become(asked)
        return
    print(pid, flush=True)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    note = Path(str(asked["code"]))
    note.with_suffix(".new").write_text(str(code))
    note.with_suffix(".new").replace(note)
    os._exit(0)


def _become(asked: dict[str, object]) -> None:
    import mfmc_ray.cli

    for number, name, mode in ((0, os.devnull, os.O_RDONLY), (1, asked["out"], os.O_WRONLY), (2, asked["err"], os.O_WRONLY)):
        file = os.open(str(name), mode)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(asked["env"])  # type: ignore[arg-type]
    sys.argv = [str(mfmc_ray.cli.__file__), *asked["args"]]  # type: ignore[misc]
    mfmc_ray.cli.main()


if __name__ == "__main__":
    _serve()
