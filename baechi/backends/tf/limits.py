"""Hold a process of TensorFlow to the memory of its device.

TensorFlow's allocator for the processor, that of oneDNN, has a cap of its own, past which an op fails with
``ResourceExhaustedError`` and the process lives on. It is read when the process starts.
"""

__all__ = ["capped_environment"]


def capped_environment(cap_bytes: int | None, threads: int = 1) -> dict[str, str]:
    """Variables for a process that trains with TensorFlow.

    Args:
        cap_bytes: what all its tensors together may take; no cap when None.
        threads: within an op, and for ops beside each other.

    Example:
        >>> capped_environment(2**20)["TF_MKL_ALLOC_MAX_BYTES"]
        '1048576'
    """
    found = {
        "OMP_NUM_THREADS": str(threads),
        "TF_NUM_INTRAOP_THREADS": str(threads),
        "TF_NUM_INTEROP_THREADS": str(threads),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_ENABLE_ONEDNN_OPTS": "1",  # its allocator has the cap; without, only newer processors get it
    }
    return found if cap_bytes is None else {**found, "TF_MKL_ALLOC_MAX_BYTES": str(cap_bytes)}
