from __future__ import annotations

import subprocess
import sys
import time

LATE = """
import threading, time
from mfmc_ray.pipeline.deadlines import Deadlines
deadlines = Deadlines()

def work(allowed, seconds):
    with deadlines.within(allowed):
        time.sleep(seconds)

threads = [threading.Thread(target=work, args=args, daemon=True) for args in ARGS]
[t.start() for t in threads]
[t.join() for t in threads]
print("done")
"""


def run(*threads: tuple[float, float]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", LATE.replace("ARGS", repr(threads))], capture_output=True, text=True, check=False)


def test_the_first_that_is_missed_ends_the_process() -> None:
    started = time.monotonic()
    done = run((60.0, 30.0), (0.3, 30.0), (0.0, 30.0))
    assert done.returncode == 1
    assert "Timeout" in done.stderr
    assert time.monotonic() - started < 25


def test_in_time() -> None:
    done = run((30.0, 0.1), (30.0, 0.2), (0.0, 0.1))
    assert (done.returncode, done.stdout) == (0, "done\n")
