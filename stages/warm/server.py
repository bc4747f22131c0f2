"""The warm server: it imports once, and forks for each client. See the package.

A fork has the client's descriptors, folder, environment and umask, default signals and fresh generators, and ends as a
process of its own: by its exit status, a signal, or with the client. The server has one thread, touches no GPU, and
ends with who offered it once its forks have ended.
"""

import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from stages.warm.fork import become

# Read by libraries when they are loaded, which is before a fork: a command that has others starts cold.
WHEN_LOADED = (
    "CUBLAS", "CUDA", "GOMP", "KMP", "LANG", "LC_", "LD_", "MALLOC", "MKL", "MPL", "OMP", "OPENBLAS", "PYTHON", "TORCH",
)  # fmt: skip
STAGES = ("baseline", "pretrain", "trial", "finetune", "perturb", "evaluate", "analyse", "report")
DENSE = ("evaluate_dense", "analyse_dense")  # of studies that have such cells
MEASURES = ("torchmetrics.functional.classification", "pycocotools.cocoeval", "torchvision.models.detection")
ALSO = ("dvc.cli", "dvc.commands.repro", "dvc.repo", "dvc.output", "dvc.stage.cache")


def serve(path: str, dense: bool = False) -> dict[str, Any] | None:
    """Fork for each client until who offered the server and all forks have ended.

    Returns: in a fork, what is to be run there; in the server, None at its end.
    """
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(f"{path}.new")
    listening.listen(128)
    given = when_loaded(os.environ)  # before libraries add to it
    preload(dense)
    os.rename(f"{path}.new", path)  # until then clients start cold, and do not wait for the imports
    clients: dict[int, socket.socket] = {}  # by the process that was forked for it
    watched = selectors.DefaultSelector()
    watched.register(0, selectors.EVENT_READ, "owner")
    watched.register(listening, selectors.EVENT_READ, "listening")
    owned = True
    while owned or clients:
        for key, _ in watched.select():
            if key.data == "owner":
                watched.unregister(0)
                owned = False
            elif key.data == "listening":
                line, _ = listening.accept()
                wanted = taken(line, given)
                if wanted is None:
                    line.close()
                    continue
                child = os.fork()
                if not child:
                    for other in (listening, line, *clients.values()):
                        other.close()
                    watched.close()
                    return wanted
                os.setpgid(child, child)  # before a signal can come for it; the child does so too, whichever is first
                for number in wanted["descriptors"]:
                    os.close(number)
                clients[child] = line
                watched.register(line, selectors.EVENT_READ, child)
                watched.register(os.pidfd_open(child), selectors.EVENT_READ, ("ended", child))
            elif isinstance(key.data, int):
                passed_on(key.data, clients[key.data], watched)
            else:
                ended(key, clients, watched)
    return None


def taken(line: socket.socket, given: Mapping[str, str]) -> dict[str, Any] | None:
    """What a client asks for, with its descriptors; None, and the client is told, where it has to start cold.

    Args: given: what the libraries found in the environment when they were loaded.
    """
    descriptors: list[int] = []
    line.settimeout(10)  # a client that was stopped holds up no other
    try:
        size, descriptors, _, _ = socket.recv_fds(line, 4, 3)
        text = b""
        while len(text) < int.from_bytes(size, "big"):
            piece = line.recv(1 << 16)
            if not piece:
                raise OSError("the client is gone")
            text += piece
        wanted: dict[str, Any] = json.loads(text)
        if wanted["folder"] == os.getcwd() and when_loaded(wanted["environment"]) == given:
            line.settimeout(None)
            return wanted | {"descriptors": descriptors}
        line.sendall(b"refused\n")
    except (OSError, ValueError):
        pass
    for number in descriptors:
        os.close(number)
    return None


def when_loaded(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(WHEN_LOADED)}


def passed_on(child: int, line: socket.socket, watched: selectors.BaseSelector) -> None:
    """Signals that the client got; where it has died, its command does."""
    try:
        numbers = line.recv(64)
    except OSError:
        numbers = b""
    for number in numbers or bytes([signal.SIGKILL]):
        os.killpg(child, number)
    if not numbers:
        watched.unregister(line)


def ended(key: selectors.SelectorKey, clients: dict[int, socket.socket], watched: selectors.BaseSelector) -> None:
    """Tell the client how its command ended."""
    child = key.data[1]
    watched.unregister(key.fd)
    os.close(key.fd)
    _, status = os.waitpid(child, 0)
    line = clients.pop(child)
    try:
        watched.unregister(line)
        line.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
    except (KeyError, OSError):  # it is gone
        pass
    line.close()


def preload(dense: bool) -> None:
    """Import what the stages and DVC import; what is not there is left to the command that needs it."""
    from turncoat.closure import ROOT, closure

    stages = STAGES + DENSE * dense
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted(closure([f"stages.{name}" for name in stages]))
    ]
    apart = {f"stages.{name}" for name in stages}  # each is run as a program, by its own name
    for module in [*modules, *ALSO, *MEASURES * dense]:
        if module not in apart:
            with suppress(ImportError):
                importlib.import_module(module)
    gc.collect()
    gc.freeze()  # a fork's collections leave the shared pages alone


if __name__ == "__main__":
    if wanted := serve(sys.argv[1], "dense" in sys.argv[2:]):
        become(wanted)
