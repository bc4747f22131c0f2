"""Check every data set, weights file, stored array and record, and DVC's cache, against their checksums.

Changes nothing. One line a fault, with the file and the remedy, and exit status 2; or what was checked. `make verify`
runs it; it is no DVC stage.
"""

import subprocess
from pathlib import Path

from stages.common import parse, run
from turncoat.errors import TurncoatError
from turncoat.integrity import check


def main() -> None:
    parse(__doc__)
    asked = subprocess.run(["dvc", "cache", "dir"], capture_output=True, text=True)
    if asked.returncode:
        raise TurncoatError(asked.stderr.strip() or "`dvc cache dir` failed")
    counts, faults = check(Path("."), Path(asked.stdout.strip()))
    checked = ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "nothing: no study has run here"
    if faults:
        raise TurncoatError("\n".join([*faults, f"{len(faults)} faults; checked: {checked}"]))
    print(f"all whole; checked: {checked}")


if __name__ == "__main__":
    run(main)
