"""Running out of memory is told from other errors, and the machine's own is taken as far as it goes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dirprune.device import derivatives_off_device, is_out_of_memory, read_free_memory


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        MemoryError(),  # of Python and, with words of its own, of numpy
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    ],
)
def test_libraries_that_find_no_memory_count_as_out_of_memory(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED",
        "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED",
        "shapes differ",
    ],
)
def test_other_errors_do_not(message: str) -> None:
    assert not is_out_of_memory(RuntimeError(message))


def test_derivatives_are_the_same_off_the_device_and_refused_without_room() -> None:
    weights = torch.arange(12.0, requires_grad=True)
    with derivatives_off_device(2 * weights.nbytes):
        moved = weights.tanh().tanh()  # each keeps its result
    (found,) = torch.autograd.grad(moved.sum(), weights)
    (expected,) = torch.autograd.grad(weights.tanh().tanh().sum(), weights)
    assert torch.equal(found, expected)
    with derivatives_off_device(None):
        assert weights.tanh().requires_grad
    with derivatives_off_device(2 * weights.nbytes - 1), pytest.raises(torch.OutOfMemoryError) as raised:
        weights.tanh().tanh()
    assert is_out_of_memory(raised.value)


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {}, 400 << 10),
        ("0::/job\n", {"job/memory.max": "max\n", "memory.max": "max\n"}, 400 << 10),
        (
            "0::/job/step\n",
            {
                "job/step/memory.max": "max\n",
                "job/memory.max": "300000\n",
                "job/memory.current": "100000\n",
                "job/memory.stat": "anon 80000\ninactive_file 20000\n",
            },
            190_000,
        ),
        (
            "4:memory:/job\n0::/\n",
            {
                "memory/memory.limit_in_bytes": "9223372036854771712\n",
                "memory/memory.usage_in_bytes": "5\n",
                "memory/memory.stat": "total_inactive_file 1\n",
                "memory/job/memory.limit_in_bytes": "100000\n",
                "memory/job/memory.usage_in_bytes": "95000\n",
                "memory/job/memory.stat": "inactive_file 90000\ntotal_inactive_file 0\n",
            },
            0,
        ),
    ],
)
def test_free_memory_is_that_of_the_machine_or_of_the_narrowest_control_group_less_a_tenth(
    tmp_path: Path, groups: str, files: dict[str, str], expected: int
) -> None:
    assert read_free_memory(tmp_path) is None
    meminfo = "MemTotal:  1000 kB\nMemFree: 90 kB\nMemAvailable:  500 kB\n"
    given = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in {"proc/meminfo": meminfo, "proc/self/cgroup": groups, **given}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert read_free_memory(tmp_path) == expected
