"""Inside a container that serves `invoke`: wait for health, call it several times, watch its memory.

    python calls.py NUMBER

Exits with 1 where an answer is not 201, or where memory grows from the fifth call to the last.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
from pathlib import Path

ALLOWED_GROWTH = 8
"""MB between the fifth call and the last; less than one pair's images take."""


def ask(method: str, path: str, seconds: float) -> tuple[int, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", 4743, timeout=seconds)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def resident() -> float:
    """Resident memory of the server, process 1 of the container, MB."""
    for line in Path("/proc/1/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("process 1 has no VmRSS")


def main(calls: int) -> int:
    began = time.monotonic()
    while True:
        try:
            if ask("GET", "/health", 10)[0] == 200:
                break
        except OSError:
            pass
        if time.monotonic() - began > 300:
            print("not healthy after 300 s, the platform's limit")
            return 1
        time.sleep(0.1)
    print(f"healthy {time.monotonic() - began:.1f} s after the first question")
    memory = []
    for number in range(1, calls + 1):
        called = time.monotonic()
        status, answer = ask("POST", "/invoke", 3600)
        if status != 201:
            print(f"call {number}: {status} {answer}")
            return 1
        memory.append(resident())
        seconds = time.monotonic() - called
        print(f"call {number}: 201 after {seconds:.2f} s, {memory[-1]:.0f} MB resident; {answer['summary']}")
    if calls <= 5:
        return 0
    growth = memory[-1] - memory[4]
    print(f"{calls} calls; memory grew by {growth:.1f} MB from the fifth to the last")
    return 0 if growth <= ALLOWED_GROWTH else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
