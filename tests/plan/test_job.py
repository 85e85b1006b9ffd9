"""The limits of a job: of control groups of both versions and of Slurm; never those of the node."""

from __future__ import annotations

from pathlib import Path

import dask
import pytest
from dask.system import CPU_COUNT

from lazyccd.plan.cost import declared_limit
from lazyccd.plan.job import job_bytes, job_cpus

SLURM = ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE", "SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU")
GB = 1 << 30


@pytest.fixture(autouse=True)
def no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the job in which the tests run."""
    for name in SLURM:
        monkeypatch.delenv(name, raising=False)


def system(root: Path, cgroup: str, **files: str) -> Path:
    """Make a file system with control groups."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, content in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("_of_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


def test_version_2(tmp_path: Path) -> None:
    """The least limit from the group of the process up to the outermost."""
    files = {"a__memory_of_max": str(3 * GB), "a__b__memory_of_max": "max", "memory_of_max": str(8 * GB)}
    assert job_bytes(system(tmp_path, "0::/a/b\n", **files)) == 3 * GB


def test_version_1(tmp_path: Path) -> None:
    """Only the memory controller counts; a number near 2**63 is no limit."""
    cgroup = "5:cpu,cpuacct:/x\n4:memory:/slurm/job_1\n"
    files = {"memory__slurm__job_1__memory.limit_in_bytes": str(2 * GB)}
    files["memory__memory.limit_in_bytes"] = str((1 << 63) - 4096)
    assert job_bytes(system(tmp_path, cgroup, **files)) == 2 * GB


def test_processors(tmp_path: Path) -> None:
    """Control groups of both versions may give less than all processors; a part of one counts as one."""
    least = {"a__cpu_of_max": "50000 100000", "cpu_of_max": "max 100000"}
    assert job_cpus(system(tmp_path / "2", "0::/a\n", **least)) == 1
    quota = {"cpu__x__cpu.cfs_quota_us": "100000", "cpu__x__cpu.cfs_period_us": "100000"}
    assert job_cpus(system(tmp_path / "1", "5:cpu,cpuacct:/x\n4:memory:/y\n", **quota)) == 1
    none = {"cpu__cpu.cfs_quota_us": "-1", "cpu__cpu.cfs_period_us": "100000"}
    assert job_cpus(system(tmp_path / "none", "5:cpu,cpuacct:/\n", **none)) == job_cpus(tmp_path / "no system")


def test_no_limit_is_not_the_node(tmp_path: Path) -> None:
    """Where nobody sets a limit there is none."""
    assert job_bytes(system(tmp_path / "a", "0::/\n", memory_of_max="max")) is None
    assert job_bytes(tmp_path / "no system") is None


def test_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Megabytes per node, or per processor times the job's processors; 0 is no limit."""
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "500")
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "4")
    assert job_bytes(tmp_path) == 2000 << 20
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "4096")
    assert job_bytes(tmp_path) == 4 * GB
    assert job_bytes(system(tmp_path / "a", "0::/\n", memory_of_max=str(GB))) == GB
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "0")
    assert job_bytes(tmp_path) is None
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert job_cpus() == 1
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "100000")
    assert job_cpus() == CPU_COUNT


def test_the_limit_that_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is declared, else the job's."""
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "700")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    limit = declared_limit()
    assert limit.bytes is not None
    assert limit.bytes <= 700 << 20
    assert limit.threads == 1
    with dask.config.set({"lazyccd.memory-limit": "3GB", "num_workers": 7}):
        assert (declared_limit().bytes, declared_limit().threads) == (3 * 10**9, 7)
