"""Holds all free memory but some, and runs a command meanwhile:

    python tools/hold_memory.py 5 cargo bench --bench frame_time

leaves 5 GiB free. The host of a virtual machine takes memory that was free for a while, and its processor stands still
while it gives it back. Where little is free, what a bench has freed it gets again before that. Linux only.
"""

import mmap
import subprocess
import sys

PAGE = 1 << 21


def free_bytes():
    """Bytes that nobody uses, not even as a cache."""
    with open("/proc/meminfo") as lines:
        line = next(line for line in lines if line.startswith("MemFree"))
    return int(line.split()[1]) << 10


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    keep, command = int(sys.argv[1]) << 30, sys.argv[2:]
    size = max(free_bytes() - keep, PAGE) // PAGE * PAGE
    held = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    held.madvise(mmap.MADV_HUGEPAGE)
    for place in range(0, size, PAGE):
        held[place] = 1
    print(f"held {size >> 20} MiB", flush=True)
    sys.exit(subprocess.run(command).returncode)


if __name__ == "__main__":
    main()
