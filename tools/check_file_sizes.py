"""Says which of the files named on the command line are too large to be added."""

import sys
from pathlib import Path

# The limit of a lesson with its stored outputs; whoever clones gets every version.
LIMIT = 1_500_000  # bytes


def too_large(paths: list[Path], limit: int = LIMIT) -> list[Path]:
    """Returns the files of more than `limit` bytes; names of no file are left out."""
    return [path for path in paths if path.is_file() and path.stat().st_size > limit]


if __name__ == "__main__":
    found = too_large([Path(name) for name in sys.argv[1:]])
    for path in found:
        print(f"{path} has {path.stat().st_size:,} bytes; {LIMIT:,} are the limit")
    sys.exit(1 if found else 0)
