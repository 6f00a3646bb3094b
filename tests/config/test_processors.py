"""How many processors a process may use: its affinity, and the quotas of its control groups."""

import os

import pytest

from rlif_jax.config import Config, Execution, own_limits, processors
from rlif_jax.config.processors import own_processors
from rlif_jax.evaluation.arguments import Arguments


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of 8 processors with the control groups of `files`, for a process of `groups`."""

    def make(groups: str | None, files: dict[str, str]) -> int:
        for name, text in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        if groups is not None:
            (tmp_path / "groups").write_text(groups)
        return own_processors()

    monkeypatch.setattr(processors, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(processors, "MEMBERSHIP", tmp_path / "groups")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    return make


V1 = "9:name=systemd:/\n5:memory:/docker/ab\n4:cpu,cpuacct:/docker/ab\n3:cpuset:/docker/ab\n"


def quota_v1(folder: str, quota: int, period: int = 100_000) -> dict[str, str]:
    """The files of a group of version 1."""
    names = {"cpu.cfs_quota_us": quota, "cpu.cfs_period_us": period}
    return {f"{folder}{name}": f"{number}\n" for name, number in names.items()}


@pytest.mark.parametrize(
    ("groups", "files", "processors_"),
    [
        ("0::/\n", {"cpu.max": "300000 100000\n"}, 3),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),  # rounded up
        ("0::/\n", {"cpu.max": "1000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "120000 50000\n"}, 3),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "1600000 100000\n"}, 8),  # the affinity is the smaller
        ("0::/\n", {}, 8),  # the root group of a whole machine has no such file
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "200000 100000\n"}, 2),
        ("0::/a/b\n", {"a/b/cpu.max": "100000 100000\n", "a/cpu.max": "200000 100000\n"}, 1),
        ("0::/a\n", {"b/cpu.max": "100000 100000\n"}, 8),  # of others
        ("0::/host/path\n", {"cpu.max": "400000 100000\n"}, 4),  # only its own part is mounted
        ("4:cpu:/\n0::/\n", {"unified/cpu.max": "500000 100000\n"}, 5),
        (V1, quota_v1("cpu/docker/ab/", 250_000), 3),
        (V1, quota_v1("cpu/", 250_000, 50_000), 5),  # mounted at its own group
        (V1, quota_v1("cpu/docker/ab/", -1), 8),
        (V1, quota_v1("memory/docker/ab/", 100_000), 8),
        (V1, {"cpu/cpu.cfs_quota_us": "100000\n"}, 8),  # half of it says nothing
        (None, {"cpu.max": "100000 100000\n"}, 8),  # no /proc, as on macOS
    ],
)
def test_the_smaller_of_affinity_and_quota(machine, groups, files, processors_):
    assert machine(groups, files) == processors_


def test_programs_run_on_all_processors_of_this_process(machine, monkeypatch):
    def workers():
        sections = (Execution(), own_limits(), Config().execution, Arguments().execution)
        (count,) = {execution.workers for execution in sections}
        return count

    machine("0::/\n", {})
    assert workers() == 8
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 8})
    assert workers() == 3
    machine("0::/\n", {"cpu.max": "200000 100000\n"})
    assert workers() == 2
    machine("0::/\n", {"cpu.max": "max 100000\n"})
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS
    assert workers() == os.cpu_count()
