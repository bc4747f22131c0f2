"""A warm start: one process imports torch, the stages and DVC once, and each command of a study is a fork of it.

Not a stage itself. `stages.repro` and `stages.bare` offer it to what they start:

    with warm.offered() as environment:
        subprocess.run(["dvc", "repro"], env=environment)

DVC still runs the commands of dvc.yaml. In that environment `python -m stages.NAME` and `dvc` are light clients
(client.py) of the server (server.py), which forks; elsewhere they are what they always are. It is offered on Linux
alone: elsewhere a fork of a process with such libraries is unsafe.

  TURNCOAT_COLD=1   do without
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SMALL = {  # what suits small networks on a CPU, where nothing else is said
    "OMP_NUM_THREADS": "1",
    # the C library keeps the memory of one step for the next: handing it back each time costs a tenth of the time
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
}
LONGEST = 120  # bytes of a `#!` line that every kernel takes


@contextmanager
def offered(wanted: bool = True, dense: bool = False) -> Iterator[dict[str, str]]:
    """The environment in which commands are forks of a warm server; today's own where there is none.

    Args: dense: import, too, what segmentation and detection are measured with.
    """
    environment = SMALL | os.environ
    possible = sys.platform == "linux" and len(f"#!{sys.executable} -IS") <= LONGEST
    if not wanted or not possible or os.environ.get("TURNCOAT_COLD"):
        yield environment
        return
    with tempfile.TemporaryDirectory(prefix="turncoat-") as folder:
        clients = Path(folder) / "bin"
        clients.mkdir()
        source = Path(__file__).with_name("client.py").read_text()
        environment |= {"TURNCOAT_WARM": f"{folder}/line"}
        for name, real in (("python", sys.executable), ("dvc", shutil.which("dvc"))):
            if real:
                (clients / name).write_text(f"#!{sys.executable} -IS\n{source}")
                (clients / name).chmod(0o755)
                environment[f"TURNCOAT_WARM_{name.upper()}"] = real
        server = subprocess.Popen(
            [sys.executable, "-m", "stages.warm.server", environment["TURNCOAT_WARM"], *["dense"] * dense],
            stdin=subprocess.PIPE,  # closed when this process ends, however it ends
            process_group=0,  # Ctrl-C is for the clients to pass on; the session, and with it the priority, is ours
            env=environment,
        )
        environment["PATH"] = f"{clients}{os.pathsep}{environment.get('PATH', os.defpath)}"
        try:
            yield environment
        finally:
            assert server.stdin
            server.stdin.close()
            server.wait()
