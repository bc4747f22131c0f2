"""What a fork of the warm server makes of itself: the process that its client would have been."""

import os
import runpy
import signal
import sys
from typing import Any

from stages.warm.client import PASSED_ON


def become(wanted: dict[str, Any]) -> None:
    """Be the process that the client asked for, up to its end."""
    os.setpgid(0, 0)
    for number, source in enumerate(wanted["descriptors"]):
        os.dup2(source, number)
        os.close(source)
    for number in PASSED_ON:
        signal.signal(number, signal.SIG_IGN if number in wanted["ignored"] else signal.SIG_DFL)
    if signal.SIGINT not in wanted["ignored"]:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(wanted["environment"])
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=os.isatty(stream.fileno()) or stream is sys.stderr)  # type: ignore[union-attr]
    if "numpy" in sys.modules:  # its generator begins by chance, as that of `random`, which Python sees to
        sys.modules["numpy"].random.seed()
    os.umask(wanted["umask"])
    sys.argv = [wanted["module"], *wanted["arguments"]]
    runpy.run_module(wanted["module"], run_name="__main__", alter_sys=True)
