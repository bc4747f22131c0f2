"""Pages of the site that lie elsewhere in the repository: README, the papers' READMEs, the API's, made by mkdocs' events."""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "reports/reference/README.md": "reference.md",
}
PAGES |= {
    str(page.relative_to(ROOT)): f"papers/{page.parent.name}.md"
    for page in sorted((ROOT / "turncoat/papers").glob("*/README.md"))
}
API = {
    "attacks": ["threat", "fgsm", "pgd", "momentum", "apgd", "autoattack", "fab", "square", "deepfool", "wrappers"],
    "evaluation": ["entry", "evaluate", "suite", "flags", "steadiness", "ladder", "audit"],
    "methods": ["base", "adversarial", "pgd", "trades", "pseudo_labels", "universal", "weight_perturbation"],
    "models": ["classifiers", "foreign", "weights", "dual_norm", "purifier", "calibrator"],
    "data": ["store", "prepare", "sources", "own"],
    "reporting": ["claims", "verdicts", "statistics", "record", "report"],
    "tracking": [],
}
LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside docs/, with their links turned to the site, and one page of API a package."""
    for source, place in PAGES.items():
        files.append(File.generated(config, place, content=turned((ROOT / source).read_text(), source, place)))
    for package, modules in API.items():
        parts = [f"turncoat.{package}", *(f"turncoat.{package}.{module}" for module in modules)]
        text = f"# `turncoat.{package}`\n\n" + "\n\n".join(f"::: {part}" for part in parts)
        files.append(File.generated(config, f"api/{package}.md", content=text + "\n"))
    return files


def on_page_markdown(markdown: str, page: object, config: MkDocsConfig, files: Files) -> str:
    """Turn the links of pages in docs/ that lead out of it."""
    place = page.file.src_uri  # type: ignore[attr-defined]
    return markdown if place in PAGES.values() or place.startswith("api/") else turned(markdown, f"docs/{place}", place)


def turned(text: str, source: str, place: str) -> str:
    """Links relative to `source` in the repository, made relative to `place` on the site; to a file that is no page: plain
    text."""
    folder = posixpath.dirname(source)

    def turn(link: re.Match[str]) -> str:
        target = link[2]
        if re.match(r"[a-z]+:", target):
            return link[0]
        inside = posixpath.normpath(posixpath.join(folder, target))
        site = PAGES.get(inside) or (inside.removeprefix("docs/") if inside.startswith("docs/") else None)
        if site is None:
            return link[1][:1] + ("" if not link[3] else "")  # the bracket closes, the address goes
        return f"{link[1]}{posixpath.relpath(site, posixpath.dirname(place) or '.')}{link[3] or ''}{link[4]}"

    return LINK.sub(turn, text)
