"""The page in a real browser: headless Chromium opens it from disk and is driven by a script added to a copy."""

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    *("--enable-logging=stderr", "--window-size=500,900", "--virtual-time-budget=20000"),
]

BEFORE = """<script>
window.faults = [];
addEventListener("error", (event) => faults.push(String(event.message)));
addEventListener("securitypolicyviolation", (event) => faults.push("request: " + event.blockedURI));
</script>
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
"""

AFTER = """<script>
addEventListener("load", () => {
  const grid = document.getElementById("grid"), filters = document.getElementById("filters");
  const shown = () => [...grid.tBodies[0].rows].filter((row) => !row.hidden);
  const column = (name) => [...grid.tHead.rows[0].cells].find((cell) => cell.textContent.trim() === name);
  const values = (name) => shown().map((row) => row.cells[column(name).cellIndex])
    .map((cell) => cell.dataset.value ?? cell.textContent);
  const press = (name) => column(name).querySelector("button").click();
  const set = (name, value) => {
    filters.elements[name].value = value;
    filters.dispatchEvent(new Event("input", { bubbles: true }));
  };
  const order = (name) => column(name).getAttribute("aria-sort");
  const seen = { start: shown().length, all: grid.tBodies[0].rows.length };
  press("pgd-20"); seen.descending = values("pgd-20"); seen.sortDown = order("pgd-20");
  press("pgd-20"); seen.ascending = values("pgd-20"); seen.sortUp = order("pgd-20");
  press("arm"); seen.arms = values("arm"); seen.sortOld = order("pgd-20");
  set("dataset", "digits"); seen.digits = [...new Set(values("data set"))]; seen.digitsRows = shown().length;
  set("arm", "MART"); seen.mart = [...new Set(values("arm"))];
  set("kind", "seed"); seen.seeds = values("seed"); seen.count = document.getElementById("count").textContent;
  set("arm", "nothing"); seen.none = shown().length;
  location.hash = "#cell-cifar10-pgd";
  setTimeout(() => {
    const loaded = performance.getEntriesByType("resource").map((entry) => entry.name);
    seen.revealed = !document.getElementById("cell-cifar10-pgd").hidden;
    const folded = document.getElementById("mart-autoattack").closest("details");
    seen.folded = !folded.open;
    location.hash = "#mart-autoattack";
    dispatchEvent(new HashChangeEvent("hashchange"));
    seen.unfolded = folded.open;
    seen.wide = document.documentElement.scrollWidth > innerWidth;
    seen.broken = [...document.images].filter((image) => !image.complete || !image.naturalWidth).length;
    seen.images = document.images.length;
    seen.bare = [...document.images].filter((image) => !(image.getAttribute("width") > 0)).length;
    seen.loaded = loaded.filter((name) => !name.startsWith("data:"));
    seen.faults = faults;
    const result = document.createElement("pre");
    result.id = "seen";
    result.textContent = btoa(JSON.stringify(seen));
    document.body.append(result);
  }, 200);
});
</script>
"""


@pytest.fixture(scope="module")
def seen(built: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the driven page saw, and what the browser said meanwhile."""
    folder = tmp_path_factory.mktemp("browser")
    page = (built / "reports/report.html").read_text().replace(' loading="lazy"', "")
    driven = folder / "driven.html"
    driven.write_text(page.replace("<head>", "<head>" + BEFORE, 1).replace("</body>", AFTER + "</body>"))
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder / 'profile'}", "--dump-dom", driven.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    found = re.search(r'<pre id="seen">([\w+/=]+)</pre>', done.stdout)
    assert found, done.stderr[-2000:]
    result: dict[str, Any] = json.loads(base64.b64decode(found[1]))
    return result | {"console": [line for line in done.stderr.splitlines() if "CONSOLE" in line]}


def test_no_console_error_and_no_request(seen: dict[str, Any]) -> None:
    assert seen["console"] == []
    assert seen["faults"] == []
    assert seen["loaded"] == []


def test_every_picture_is_there_and_the_page_fits_its_window(seen: dict[str, Any]) -> None:
    assert seen["images"] > 10
    assert seen["broken"] == 0
    assert seen["bare"] == 0
    assert seen["wide"] is False


def test_sorting(seen: dict[str, Any]) -> None:
    down = [float(value) for value in seen["descending"]]
    assert len(down) == seen["start"] == 10
    assert down == sorted(down, reverse=True)
    assert [float(value) for value in seen["ascending"]] == sorted(down)
    assert (seen["sortDown"], seen["sortUp"], seen["sortOld"]) == ("descending", "ascending", "none")
    assert seen["arms"] == sorted(seen["arms"])


def test_filtering(seen: dict[str, Any]) -> None:
    assert seen["digits"] == ["digits"]
    assert seen["digitsRows"] == 5
    assert seen["mart"] == ["mart", "mart-no-kl"]
    assert sorted(seen["seeds"]) == ["0", "0", "1", "1", "2", "2"]
    assert seen["count"] == f"6 of {seen['all']} rows"
    assert seen["none"] == 0


def test_a_link_to_a_hidden_row_shows_it(seen: dict[str, Any]) -> None:
    assert seen["revealed"] is True


def test_a_link_to_a_folded_claim_unfolds_it(seen: dict[str, Any]) -> None:
    assert (seen["folded"], seen["unfolded"]) == (True, True)


LANDED = """<script>
addEventListener("load", () => setTimeout(() => {
  const top = document.querySelector("#reverse h2").getBoundingClientRect().top;
  document.body.append(Object.assign(document.createElement("pre"), { id: "seen", textContent: btoa(String(top)) }));
}, 1500));
</script>
"""


def test_a_link_lands_on_its_heading_though_pictures_load_late(built: Path, tmp_path: Path) -> None:
    """The page as it is, lazy pictures and all, opened at its last paper: the heading stands below the menu."""
    page = (built / "reports/report.html").read_text().replace("scroll-behavior: smooth;", "", 1)
    assert page.count(' loading="lazy"') > 10
    (tmp_path / "page.html").write_text(page.replace("</body>", LANDED + "</body>"))
    address = (tmp_path / "page.html").as_uri() + "#reverse"
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    found = re.search(r'<pre id="seen">([\w+/=]+)</pre>', done.stdout)
    assert found, done.stderr[-2000:]
    assert 0 <= float(base64.b64decode(found[1])) < 150
