"""Hardware detection against trees of real files laid out as the kernel does."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from config.hardware import Machine, detect

GIB = 1 << 30
BIG = Machine(cores=16, memory_total=64 * GIB, memory_available=48 * GIB)


def lay(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_without_limits_it_is_the_machine(tmp_path):
    found = detect(root=tmp_path, machine=BIG)
    assert (found.cores, found.memory_total, found.memory_available) == (16, 64 * GIB, 48 * GIB)
    assert found.cores_from == found.memory_total_from == found.memory_available_from == "machine"


@pytest.mark.parametrize(
    ("quota", "cores"), [("250000 100000", 2), ("50000 100000", 1), ("400000 100000", 4), ("3200000 100000", 16), ("max 100000", 16)]
)
def test_cpu_quota_of_version_2_counts_in_whole_cores_of_at_least_one(tmp_path, quota, cores):
    lay(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": quota})
    found = detect(root=tmp_path, machine=BIG)
    assert found.cores == cores
    assert (found.cores_from == "machine") == (cores == 16)


def test_the_tightest_group_on_the_way_up_decides(tmp_path):
    lay(
        tmp_path,
        {
            "proc/self/cgroup": "0::/batch/job7\n",
            "sys/fs/cgroup/batch/job7/cpu.max": "800000 100000",
            "sys/fs/cgroup/batch/cpu.max": "300000 100000",
            "sys/fs/cgroup/batch/job7/memory.max": str(8 * GIB),
            "sys/fs/cgroup/batch/memory.max": str(20 * GIB),
            "sys/fs/cgroup/other/cpu.max": "100000 100000",
        },
    )
    found = detect(root=tmp_path, machine=BIG)
    assert (found.cores, found.memory_total) == (3, 8 * GIB)
    assert found.cores_from == "cgroup v2 cpu.max (3 cores)"


def test_memory_high_bounds_like_memory_max_and_cache_is_free_memory(tmp_path):
    lay(
        tmp_path,
        {
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/memory.max": str(8 * GIB),
            "sys/fs/cgroup/memory.high": str(6 * GIB),
            "sys/fs/cgroup/memory.current": str(5 * GIB),
            "sys/fs/cgroup/memory.stat": f"anon 1\ninactive_file {2 * GIB}\nactive_file 5\n",
        },
    )
    found = detect(root=tmp_path, machine=BIG)
    assert (found.memory_total, found.memory_total_from) == (6 * GIB, "cgroup v2 memory.high")
    assert found.memory_available == 3 * GIB


def test_version_1_limits_and_its_way_of_saying_none(tmp_path):
    group = "docker/0a1b"
    files = {
        "proc/self/cgroup": f"11:memory:/{group}\n4:cpu,cpuacct:/{group}\n1:name=systemd:/{group}\n",
        f"sys/fs/cgroup/cpu,cpuacct/{group}/cpu.cfs_quota_us": "150000",
        f"sys/fs/cgroup/cpu,cpuacct/{group}/cpu.cfs_period_us": "100000",
        f"sys/fs/cgroup/memory/{group}/memory.limit_in_bytes": str(4 * GIB),
        f"sys/fs/cgroup/memory/{group}/memory.usage_in_bytes": str(3 * GIB),
        f"sys/fs/cgroup/memory/{group}/memory.stat": f"total_inactive_file {GIB}\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
    }
    found = detect(root=lay(tmp_path, files), machine=BIG)
    assert (found.cores, found.memory_total, found.memory_available) == (1, 4 * GIB, 2 * GIB)
    assert found.memory_total_from == "cgroup v1 memory.limit_in_bytes"


def test_a_container_that_sees_the_hosts_group_path_still_finds_its_limit(tmp_path):
    lay(tmp_path, {"proc/self/cgroup": "0::/docker/0a1b2c\n", "sys/fs/cgroup/memory.max": str(2 * GIB)})
    assert detect(root=tmp_path, machine=BIG).memory_total == 2 * GIB


def test_damaged_limit_files_are_no_limits(tmp_path):
    lay(tmp_path, {"proc/self/cgroup": "garbage\n", "sys/fs/cgroup/cpu.max": "1 0", "sys/fs/cgroup/memory.max": "lots"})
    assert detect(root=tmp_path, machine=BIG).cores == 16


@pytest.mark.parametrize(("kind", "storage"), [("nfs4", "network"), ("fuse.sshfs", "network"), ("tmpfs", "memory"), ("ext4", "local")])
def test_the_lakes_file_system_is_that_of_the_deepest_mount(tmp_path, kind, storage):
    mount = tmp_path / "big disk"
    mount.mkdir()
    point = str(mount).replace(" ", "\\040")
    whole, own = "21 1 8:1 / / rw shared:1 - xfs /dev/a rw", f"36 21 0:5 / {point} rw,noatime master:1 - {kind} host:/x rw"
    lay(tmp_path, {"proc/self/mountinfo": f"{whole}\n{own}\nshort line\n"})
    inside, outside = detect(mount / "not" / "yet", root=tmp_path, machine=BIG), detect(tmp_path, root=tmp_path, machine=BIG)
    assert (inside.lake_filesystem, inside.lake_storage) == (kind, storage)
    assert inside.disk_free_from == str(mount)
    assert outside.lake_filesystem == "xfs"


def test_this_machine_agrees_with_psutil_and_the_affinity():
    found = detect()
    assert 1 <= found.cores <= (psutil.cpu_count() or 1)
    assert 0 < found.memory_available <= found.memory_total <= psutil.virtual_memory().total
    assert found.disk_free > 0
    assert found.lake_storage in ("local", "network", "memory", "unknown")


@pytest.mark.skipif(not hasattr(psutil.Process, "cpu_affinity"), reason="no affinity on this system")
def test_an_affinity_to_one_core_leaves_one_core():
    process = psutil.Process()
    before = process.cpu_affinity()
    if len(before) < 2:
        pytest.skip("one core only")
    try:
        process.cpu_affinity(before[:1])
        found = detect()
    finally:
        process.cpu_affinity(before)
    assert (found.cores, found.cores_from) == (1, f"affinity (1 of {psutil.cpu_count()})")
