"""The light end of the warm start: hands a command over to the warm server, or runs it as if there were none.

Installed as `python` and `dvc` ahead of the real ones, and run without site-packages (-IS), so that it starts fast. It
passes signals on, and ends as the command ended: by its exit status or its signal. Where the server takes no more, or
takes no such command, the real program takes this process's place.
"""

import json
import os
import signal
import socket
import sys

PASSED_ON = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)


def main() -> None:
    name, arguments = os.path.basename(sys.argv[0]), sys.argv[1:]
    real = os.environ.get(f"TURNCOAT_WARM_{name.upper()}", "")
    if name == "dvc":
        module, given = "dvc", arguments
    elif arguments[:1] == ["-m"] and arguments[1:2] and arguments[1].startswith("stages."):
        module, given = arguments[1], arguments[2:]
    else:
        os.execv(real, [real, *arguments])
    try:
        answer = handed_over(module, given)
    except OSError:
        answer = None
    if answer is None:
        os.execv(real, [real, *arguments])
    elif answer < 0:  # by a signal
        if -answer in PASSED_ON:
            signal.signal(-answer, signal.SIG_DFL)
        os.kill(os.getpid(), -answer)
    sys.exit(answer)


def handed_over(module: str, arguments: list[str]) -> int | None:
    """How the server's process ended, as `subprocess` has it; None where the server refused.

    Raises:
        OSError: there is no server.
    """
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(os.environ["TURNCOAT_WARM"])
        wanted = {"module": module, "arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}
        umask = os.umask(0)
        os.umask(umask)
        ignored = [number for number in PASSED_ON if signal.getsignal(number) == signal.SIG_IGN]
        text = json.dumps(wanted | {"umask": umask, "ignored": ignored}).encode()
        socket.send_fds(line, [len(text).to_bytes(4, "big")], [0, 1, 2])
        line.sendall(text)
        for number in PASSED_ON:
            if number not in ignored:
                signal.signal(number, lambda number, _: line.send(bytes([number])))
        answer = b""
        while not answer.endswith(b"\n"):
            try:
                piece = line.recv(64)
            except OSError:  # from here on the command may have begun: it must not run twice
                piece = b""
            if not piece:
                sys.exit("the warm server is gone, and with it what this command ran")
            answer += piece
    return None if answer == b"refused\n" else int(answer)


if __name__ == "__main__":
    main()
