"""Compiled code under the compiler's own sanitizers: it reads and writes nowhere else, whatever the payloads are."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import compiled

ROOT = Path(__file__).parents[2]
SOURCES = sorted(Path(compiled.__file__).parent.glob("*.c"))
FLAGS = (
    "-O1",
    "-g",
    "-ffp-contract=off",
    "-fno-sanitize-recover=all",
    "-fsanitize=address,undefined",
    "-shared",
    "-fPIC",
)
TESTS = ("tests/unit/test_decode.py", "tests/unit/test_compiled.py", "tests/unit/io/test_record_walk.py")

RUN = """
import sys
from pathlib import Path
import pyarrow as pa
from pipeline import compiled
pa.set_memory_pool(pa.system_memory_pool())  # the only one that the sanitizers watch
compiled.LOOPS = compiled.Loops.found(Path(sys.argv[1]))
assert compiled.LOOPS is not None
import pytest
sys.exit(pytest.main(["-q", "-n", "0", "-p", "no:cacheprovider", *sys.argv[2:]]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the sanitizers are loaded as Linux does it")
@pytest.mark.parametrize("more", ((), ("-DSTILLWATCH_PLAIN",)), ids=("as it is built", "without vectors"))
def test_every_test_of_compiled_code_passes_under_sanitizers(tmp_path: Path, more: tuple[str, ...]) -> None:
    compiler = shutil.which("gcc")
    libraries = [_library(compiler, name) for name in ("libasan.so", "libubsan.so")] if compiler else []
    if compiler is None or not all(libraries):
        pytest.skip("needs gcc and its sanitizers")
    subprocess.run([compiler, *FLAGS, *more, "-o", tmp_path / "_loops.so", *SOURCES], check=True)
    environment = {
        **os.environ,
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-c", RUN, str(tmp_path), *TESTS]
    done = subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def _library(compiler: str, name: str) -> str:
    """Where a library of the compiler is; nothing where it is not installed."""
    found = subprocess.run(
        [compiler, f"-print-file-name={name}"], check=True, capture_output=True, text=True
    ).stdout.strip()
    return found if Path(found).is_file() else ""
