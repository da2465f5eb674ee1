import subprocess
import sys
from pathlib import Path

import psutil
import torch

from profiles.memory import _left_by_groups, free_bytes

CPU = torch.device("cpu")
MIB = 2**20


def group(folder: Path, limit: str, used: int, reclaimable: int, *, version: int = 2) -> None:
    names = {1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"), 2: ("memory.max", "memory.current", "")}
    limit_name, used_name, prefix = names[version]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / limit_name).write_text(f"{limit}\n")
    (folder / used_name).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{prefix}inactive_file {reclaimable}\nactive_file 9\n")


def test_a_group_and_those_around_it_limit_what_is_left(tmp_path: Path) -> None:
    groups = tmp_path / "cgroup"
    groups.write_text("0::/slurm/job\n")
    (tmp_path / "fs").mkdir()
    group(tmp_path / "fs" / "slurm", "1000", 700, 100)
    group(tmp_path / "fs" / "slurm" / "job", "max", 500, 0)
    assert list(_left_by_groups(groups, tmp_path / "fs")) == [400]
    group(tmp_path / "fs" / "slurm" / "job", "600", 500, 0)
    assert list(_left_by_groups(groups, tmp_path / "fs")) == [100, 400]


def test_groups_of_the_first_version_are_read_as_well(tmp_path: Path) -> None:
    groups = tmp_path / "cgroup"
    groups.write_text("5:cpuset:/job\n4:memory:/job\n")
    group(tmp_path / "fs" / "memory" / "job", "1000", 700, 100, version=1)
    group(tmp_path / "fs" / "cpuset" / "job", "10", 7, 1, version=1)
    assert list(_left_by_groups(groups, tmp_path / "fs")) == [400]


def test_where_no_group_limits_nothing_is_said(tmp_path: Path) -> None:
    assert list(_left_by_groups(tmp_path / "none", tmp_path)) == []
    (tmp_path / "cgroup").write_text("0::/\n")
    assert list(_left_by_groups(tmp_path / "cgroup", tmp_path)) == []


def test_no_more_is_free_than_the_system_has() -> None:
    assert 0 < free_bytes(CPU) <= psutil.virtual_memory().total


def test_the_limit_of_the_process_counts() -> None:
    program = (
        "import psutil, resource, torch; from profiles.memory import free_bytes;"
        f"limit = psutil.Process().memory_info().vms + 64 * {MIB};"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit)); print(free_bytes(torch.device('cpu')))"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert 32 * MIB < int(told.stdout) <= 64 * MIB
