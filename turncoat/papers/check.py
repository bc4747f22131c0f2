"""Whether every paper's folder is complete: asked before anything trains, for a report is made last."""

from pathlib import Path

from turncoat.errors import TurncoatError, there_are
from turncoat.papers import PAPERS, chapters
from turncoat.papers.arms import check_arms, method_class
from turncoat.papers.parts import FOLDER, methods
from turncoat.reporting import page
from turncoat.settings import Settings

FILES = {
    "README.md": "what the paper is about",
    "claims.yaml": "what it says",
    "arms.yaml": "its arms",
    "diagram.svg.j2": "its diagram",
}


def check_folders() -> None:
    """Check that each paper is in the list and has its files: before the settings are read, some of which are theirs.

    Raises:
        TurncoatError: in one line, what is missing, and where.
    """
    folders = {path.parent.name for path in FOLDER.glob("*/__init__.py")}
    for name in sorted(folders ^ set(PAPERS)):
        lack = "is not in PAPERS of turncoat/papers/__init__.py" if name in folders else "has no __init__.py"
        raise TurncoatError(f"turncoat/papers/{name}: {lack}")
    for paper in PAPERS:
        folder = FOLDER / paper
        for file, what in FILES.items():
            if not (folder / file).is_file():
                raise TurncoatError(f"{_short(folder / file)} is missing: {what}")


def check(settings: Settings) -> None:
    """Check that each paper has a method of its name, arms with a sentence, claims about arms that there are.

    Raises:
        TurncoatError: in one line, what is missing or wrong, and in which file.
    """
    for paper in PAPERS:
        folder = FOLDER / paper
        if paper not in methods(paper):
            raise TurncoatError(f"{_short(folder / '__init__.py')}: METHODS has no method named {paper}")
        for method in methods(paper):
            method_class(method)
    check_arms(settings)
    for chapter in chapters.load():
        page.diagram(chapter)
        _check_names(settings, chapter.paper.name, chapter.paper.arms)


def _check_names(settings: Settings, paper: str, shown: list[str]) -> None:
    """The arms that claims.yaml shows are defined; those of arms.yaml are all shown, and say what they are."""
    claims, arms = (_short(FOLDER / paper / file) for file in ("claims.yaml", "arms.yaml"))
    for arm in shown:
        if arm not in settings.arms:
            raise TurncoatError(f"{claims}: arms: {arm} is not defined; {there_are(arm, settings.arms)}")
    for arm in settings.arms:
        if settings.file("arms", arm) == arms:
            if arm not in settings.says:
                raise TurncoatError(f"{arms}: arms.{arm}.says is missing: what the arm is, in a sentence")
            if arm not in shown:
                raise TurncoatError(f"{claims}: arms: {arm} of arms.yaml is missing: the report would not show it")


def _short(path: Path) -> str:
    return path.relative_to(FOLDER.parents[1]).as_posix()
