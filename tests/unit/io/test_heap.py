"""Freed memory is kept where that can be asked for, and nothing breaks where it cannot."""

import os
import subprocess
import sys

import pytest

from pipeline.io import heap

FAULTS = """
import resource
from pipeline.io import heap
kept = {call}
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):  # as the copies of one fetch: together more than what glibc keeps by itself
    blocks = [bytes([number]) * (15 << 20) for number in range(3)]
    del blocks
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(call: str, **environment: str) -> tuple[bool, int]:
    inherited = {name: value for name, value in os.environ.items() if name != "MALLOC_TRIM_THRESHOLD_"}
    program = FAULTS.format(call=call)
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, check=True, timeout=60, env=inherited | environment,
    )  # fmt: skip
    kept, faults = done.stdout.split()
    return kept == "True", int(faults)


@pytest.mark.skipif("CS_GNU_LIBC_VERSION" not in os.confstr_names, reason="only glibc gives large blocks back")
def test_large_blocks_are_faulted_in_once() -> None:
    _, without = run("False")
    kept, faults = run("heap.keep_freed_memory()")
    assert kept
    assert faults * 4 < without


def test_what_the_operator_chose_is_left_alone() -> None:
    kept, _ = run("heap.keep_freed_memory()", MALLOC_TRIM_THRESHOLD_="1000000")
    assert not kept


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.delitem(os.confstr_names, "CS_GNU_LIBC_VERSION", raising=False)
    assert not heap.keep_freed_memory()
