"""What params.yaml is merged with: files of the same form, for what few edit.

Each paper's arms, further data sets, further suites. An entry of params.yaml takes the place of its namesake there.
"""

from pathlib import Path
from typing import Any, NamedTuple

from turncoat.errors import TurncoatError
from turncoat.reading import read_yaml

HERE = Path(__file__).parent
SHELVES = ("papers/*/arms.yaml", "data/datasets.yaml", "evaluation/suites.yaml")  # merged with params.yaml


class Merged(NamedTuple):
    """All settings as params.yaml would hold them; what arms are, in a sentence; (section, name) -> file."""

    values: dict[str, Any]
    says: dict[str, str]
    files: dict[tuple[str, str], str]


def merged(path: Path | str = "params.yaml", here: Path = HERE) -> Merged:
    """params.yaml, and what else is on the shelves of the folder `here`; nothing is checked but that they fit together.

    Raises:
        TurncoatError: a file that cannot be read, or two shelves with an entry of the same name.
    """
    own = read_yaml(path)
    all_ = Merged({}, {}, {})
    for file in [path, *(shelf for pattern in SHELVES for shelf in sorted(here.glob(pattern)))]:
        content = own if file is path else read_yaml(file)
        name = str(path) if file is path else Path(file).relative_to(here.parent).as_posix()
        if not isinstance(content, dict):
            raise TurncoatError(f"{name}: sections are wanted, such as `arms:` (got {content!r})")
        for section, entries in content.items():
            if file is path and not isinstance(entries, dict):
                all_.values[section] = entries
                continue
            there = all_.values.setdefault(section, {})
            if isinstance(there, dict):  # else params.yaml is at fault, and `validate` says so
                for key, entry in (entries or {}).items():
                    _put(all_, there, section, key, entry, name, str(path))
    return all_


def _put(all_: Merged, there: dict[str, Any], section: str, key: str, entry: Any, file: str, first: str) -> None:
    """Add one entry, unless params.yaml has it; its `says` goes aside."""
    if key in there:
        if (other := all_.files[section, key]) != first:
            raise TurncoatError(f"{file}: {section}.{key} also stands in {other}; give it another name")
        return
    if section in ("arms", "pretrained") and isinstance(entry, dict) and "says" in entry:
        entry = dict(entry)
        said = entry.pop("says")
        if not isinstance(said, str) or not said.strip():
            raise TurncoatError(f"{file}: {section}.{key}.says: a sentence is wanted (got {said!r})")
        if section == "arms":
            all_.says[key] = " ".join(said.split())
    there[key] = entry
    all_.files[section, key] = file
