"""A headless Chromium, driven over its DevTools pipe: no driver and no package is needed, only Debian's chromium."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    *("--window-size=1280,900", "--remote-debugging-pipe"),
)


class Page:
    """One tab: `with Page(folder) as page: page.open(address); page.wait("document.title")`."""

    def __init__(self, folder: Path) -> None:
        """`folder`: for the browser's profile."""
        ours, theirs = os.pipe(), os.pipe()
        assert CHROMIUM
        # the browser reads commands from its file 3 and writes answers to its file 4
        command = f'exec "$0" "$@" 3<&{ours[0]} 4>&{theirs[1]}'
        self._process = subprocess.Popen(
            ["bash", "-c", command, CHROMIUM, *FLAGS, f"--user-data-dir={folder}"],
            pass_fds=(ours[0], theirs[1]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(ours[0])
        os.close(theirs[1])
        self._to, self._from, self._number, self._rest = ours[1], theirs[0], 0, b""
        self._session: dict[str, str] = {}
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with suppress(OSError):
            self._process.kill()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)

    def _ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params, **self._session}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._rest:
                part = os.read(self._from, 1 << 16)
                assert part, "the browser has gone"
                self._rest += part
            answer, _, self._rest = self._rest.partition(b"\0")
            told = json.loads(answer)
            if told.get("id") == self._number:
                assert "error" not in told, told
                return dict(told["result"])

    def open(self, address: str) -> None:
        """Go to an address; returns before it is loaded."""
        self._ask("Page.navigate", url=address)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        return self._ask("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def wait(self, script: str, seconds: float = 60, enough: Callable[[Any], bool] = bool) -> Any:
        """The value of an expression, asked again until it is `enough`; an AssertionError shows the page's text."""
        until = time.monotonic() + seconds
        while not enough(value := self.run(script)):
            assert time.monotonic() < until, (
                f"{script}: {value!r}; the page says: {self.run('document.body.innerText')}"
            )
            time.sleep(0.3)
        return value
