"""Products of fp32 numbers in fp32: TF32 keeps 10 bits of each, and interactions need more.

torch has two ways to say so, and refuses to be asked in the older one once somebody has used the newer one (which
`TrainingArguments(tf32=True)` does).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_BACKENDS = ("cuda.matmul", "cudnn", "cudnn.conv", "cudnn.rnn", "mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn")


def use_exact_products() -> None:
    """Switch TF32 off, for this process."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False


@contextmanager
def exact_products() -> Iterator[None]:
    """TF32 off inside of the block, and everything as it was afterwards."""
    try:
        before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    except RuntimeError:  # somebody has used the newer way
        with _newer():
            yield
        return
    try:
        use_exact_products()
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


@contextmanager
def _newer() -> Iterator[None]:
    backends = [backend for name in _BACKENDS if hasattr(backend := _backend(name), "fp32_precision")]
    before = [(backend, backend.fp32_precision) for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in before:
            backend.fp32_precision = precision


def _backend(name: str) -> Any:
    found: Any = torch.backends
    for part in name.split("."):
        found = getattr(found, part, None)
    return found
