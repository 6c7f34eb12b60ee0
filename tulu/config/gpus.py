"""How many GPUs this process may use, without a library that takes seconds to import."""

import ctypes
import os


def count_gpus() -> int:
    """NVIDIA GPUs that CUDA would show this process; 0 where there are none, or nobody knows."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    present = _present()
    if visible is None or not present:
        return present
    names = [name.strip() for name in visible.split(",")]
    # CUDA stops at the first name that it does not know, and programs hide all GPUs with -1 or with nothing.
    wrong = next((place for place, name in enumerate(names) if not name or name.startswith("-")), len(names))
    return len(names[:wrong])


def _present() -> int:
    """The GPUs that the driver shows, in a container those that it was given."""
    count = ctypes.c_uint(0)
    try:
        driver = ctypes.CDLL("libnvidia-ml.so.1")
        if driver.nvmlInit_v2() != 0:
            return 0
        try:
            return count.value if driver.nvmlDeviceGetCount_v2(ctypes.byref(count)) == 0 else 0
        finally:
            driver.nvmlShutdown()
    except (OSError, AttributeError):
        return 0
