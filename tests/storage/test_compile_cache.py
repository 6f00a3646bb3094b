"""Compiled stages kept between processes: real processes, real entries, JAX's own bound."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from support import ROOT

from rlif_jax.storage.compile_cache import LARGEST_BYTES, compiled_folder, keep_compiled

SETTINGS = ("jax_compilation_cache_dir", "jax_compilation_cache_max_size")

# Compiles as many different functions as its argument says; prints how many came from the cache.
COMPILE = """
import sys
import jax
from rlif_jax.storage.compile_cache import keep_compiled

events = []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
keep_compiled()
for i in range(int(sys.argv[1])):
    jax.jit(lambda x: x * (i + 2) + i)(1.5)
print(events.count("/jax/compilation_cache/cache_hits"))
"""


@pytest.fixture
def unset(monkeypatch, tmp_path):
    """JAX as in a fresh process, and an empty cache folder of the user; put back afterwards."""
    monkeypatch.setenv("RLIF_CACHE", str(tmp_path))
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_compilation_cache_max_size", -1)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def settings() -> tuple:
    return tuple(getattr(jax.config, name) for name in SETTINGS)


def start(cache: Path, functions: int, **environment: str) -> subprocess.Popen:
    """A process that compiles with its cache in `cache`."""
    inherited = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    chosen = {"RLIF_CACHE": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return subprocess.Popen(
        [sys.executable, "-c", COMPILE, str(functions)],
        env={**inherited, **chosen, **environment},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def printed(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    return output.strip()


def entries(cache: Path) -> list[Path]:
    return list(cache.glob("xla/*/*-cache"))


def test_a_second_process_loads_what_the_first_compiled(tmp_path):
    assert printed(start(tmp_path, 3)) == "0"
    assert len(entries(tmp_path)) == 3
    torn = entries(tmp_path)[0]  # as after a kill between JAX's two writes
    torn.write_bytes(torn.read_bytes()[:100])
    Path(str(torn).removesuffix("-cache") + "-atime").unlink()
    assert printed(start(tmp_path, 3)) == "2"
    assert printed(start(tmp_path, 3)) == "3"


def test_processes_share_a_bounded_cache(tmp_path):
    bound = {"JAX_COMPILATION_CACHE_MAX_SIZE": "8000"}
    both = [start(tmp_path, 12, **bound) for _ in range(2)]
    assert [printed(process).isdigit() for process in both] == [True, True]  # no warning is printed
    sizes = [entry.stat().st_size for entry in entries(tmp_path)]
    assert 0 < sum(sizes) <= 8000
    assert len(sizes) < 12


def test_the_users_folder_is_used_within_a_bound(unset):
    keep_compiled()
    assert settings() == (str(compiled_folder()), LARGEST_BYTES)
    assert compiled_folder().is_dir()


def test_a_cache_that_the_user_has_set_stays(unset, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    keep_compiled()
    assert settings() == (str(tmp_path / "own"), -1)
    assert not compiled_folder().exists()


def test_a_cache_that_the_user_has_turned_off_stays_off(unset):
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        keep_compiled()
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    assert settings() == (None, -1)


def test_a_folder_that_cannot_be_made_is_reported(unset, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RLIF_CACHE", str(tmp_path / "file"))
    notes = []
    keep_compiled(notes.append)
    (note,) = notes
    assert note.startswith("compiled stages are not kept: ")
    assert "RLIF_CACHE" in note
    assert settings() == (None, -1)


def test_each_kind_of_processor_has_its_own_folder(tmp_path):
    def folder(flags: str, mhz: str) -> Path:
        one = f"model name\t: EPYC\ncpu MHz\t\t: {mhz}\nflags\t\t: {flags}\n"
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{one}\nprocessor\t: 1\n{one}\n")
        return compiled_folder(tmp_path / "cpuinfo")

    assert folder("avx2 fma", "2200.1") == folder("fma avx2", "3100.7")
    assert folder("avx2 fma", "2200.1") != folder("avx2 fma avx512f", "2200.1")
