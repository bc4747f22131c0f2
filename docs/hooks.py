"""Pages of the site that do not lie in docs/: README, the papers' READMEs, one of API a package (mkdocs calls this)."""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "reports/reference/README.md": "reference.md",
    "lease/README.md": "lease.md",
}
PAGES |= {
    str(page.relative_to(ROOT)): f"papers/{page.parent.name}.md"
    for page in sorted((ROOT / "turncoat/papers").glob("*/README.md"))
}
API = {
    "attacks": ["threat", "fgsm", "pgd", "momentum", "apgd", "autoattack", "fab", "square", "deepfool", "wrappers"],
    "evaluation": ["entry", "evaluate", "suite", "flags", "steadiness", "ladder", "audit", "dense"],
    "methods": ["base", "adversarial", "pgd", "trades", "pseudo_labels", "universal", "weight_perturbation"],
    "models": ["classifiers", "segmentation", "detection", "foreign", "weights", "dual_norm", "purifier", "calibrator"],
    "data": ["store", "targets", "annotated", "scenes", "prepare", "sources", "own"],
    "reporting": ["claims", "verdicts", "statistics", "record", "report"],
    "tracking": [],
}
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside docs/, and one page of API a package from its modules' docstrings."""
    for source, place in PAGES.items():
        files.append(File.generated(config, place, content=turned((ROOT / source).read_text(), source, place)))
    for package, modules in API.items():
        parts = [f"turncoat.{package}", *(f"turncoat.{package}.{module}" for module in modules)]
        text = f"# `turncoat.{package}`\n\n" + "\n\n".join(f"::: {part}" for part in parts)
        files.append(File.generated(config, f"api/{package}.md", content=text + "\n"))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn those links of pages in docs/ that lead out of it."""
    place = page.file.src_uri
    if page.file.generated_by:
        return markdown
    return turned(markdown, f"docs/{place}", place)


def turned(text: str, source: str, place: str) -> str:
    """Links of `source` in the repository turned to `place` on the site; one to a file that is no page is its text."""
    folder = posixpath.dirname(source)

    def turn(link: re.Match[str]) -> str:
        words, target, anchor = link[1], link[2], link[3] or ""
        if re.match(r"[a-z]+:", target):
            return link[0]
        inside = posixpath.normpath(posixpath.join(folder, target))
        site = PAGES.get(inside) or (inside.removeprefix("docs/") if inside.startswith("docs/") else None)
        if site is None:
            return words
        return f"[{words}]({posixpath.relpath(site, posixpath.dirname(place) or '.')}{anchor})"

    return LINK.sub(turn, text)
