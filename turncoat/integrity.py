"""Every file of a study against the checksum that was noted when it was made; nothing is trusted for being there.

from turncoat.integrity import check
counts, faults = check(Path("."), cache=Path(".dvc/cache"))
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from turncoat.errors import TurncoatError
from turncoat.files import read_json, sha256

Check = tuple[str, Path, str | None]  # a kind of file, the file, what is wrong with it and the remedy


def check(root: Path, cache: Path) -> tuple[Counter[str], list[str]]:
    """Check the data sets, weights, perturbed images and records below `root`, and DVC's objects in `cache`.

    Returns: files checked, by kind; a line for each fault, with the file and the remedy.
    """
    counts: Counter[str] = Counter()
    faults = []
    for kind, path, fault in _all(root, cache):
        counts[kind] += 1
        if fault:
            faults.append(f"{path}: {fault}")
    return counts, faults


def _all(root: Path, cache: Path) -> Iterator[Check]:
    for about in sorted(root.glob("data/*/dataset.json")):
        yield from _listed("arrays", about, "sha256", "{}.npy")
    for about in sorted(root.glob("data/perturbed/*/*/perturbed.json")):
        yield from _listed("arrays", about, "sha256", "{}.npy")
        yield from _listed("arrays", about, "predictions", "predictions.npy")
        yield from _listed("arrays", about, "examples", "examples.npz")
    for about in sorted(root.glob("models/**/training.json")):
        yield from _listed("weights", about, "weights", "{}.safetensors")
    for about in sorted(root.glob("reports/records/*/*/*/record.json")):
        yield from _record(root, about)
    for path in sorted(cache.glob("files/md5/??/*")):
        yield "DVC objects", path, _object(path)


def _listed(kind: str, about: Path, field: str, name: str) -> Iterator[Check]:
    """The files beside `about` whose SHA-256 it holds under `field`: one, or one for each name."""
    remedy = f"delete {about.parent} and run `dvc repro`"
    try:
        told = read_json(about)[field]
    except (TurncoatError, KeyError, TypeError) as error:
        yield kind, about, f"{field} cannot be read ({error}); {remedy}"
        return
    for key, checksum in (told if isinstance(told, Mapping) else {"": told}).items():
        path = about.parent / name.format(key)
        yield kind, path, _differs(path, checksum, about.name, remedy)


def _record(root: Path, path: Path) -> Iterator[Check]:
    remedy = f"delete {path.parent} and run `dvc repro`"
    try:
        record, provenance = read_json(path), read_json(path.with_name("provenance.json"))
        cell: dict[str, Any] = record["cell"]
        examples, weights = path.with_name(record["examples"]["file"]), record["weights"]
        yield "records", path, _differs(path, provenance["record_sha256"], "provenance.json", remedy)
        yield "records", examples, _differs(examples, record["examples"]["sha256"], path.name, remedy)
    except (TurncoatError, KeyError, TypeError) as error:
        yield "records", path, f"is damaged, or its provenance.json is ({error!r}); {remedy}"
        return
    trained = root / "models" / cell["dataset"] / cell["arm"] / str(cell["seed"]) / "training.json"
    if trained.exists() and read_json(trained).get("weights") != weights:
        yield "records", path, f"is of other weights than {trained.parent} holds; run `dvc repro`"


def _differs(path: Path, checksum: str, source: str, remedy: str) -> str | None:
    if not path.is_file():
        return f"missing, but {source} names it; {remedy}"
    return None if sha256(path) == checksum else f"differs from its checksum in {source}; {remedy}"


def _object(path: Path) -> str | None:
    """DVC names an object by its MD5, a folder's listing with `.dir` behind it."""
    with open(path, "rb") as file:
        md5 = hashlib.file_digest(file, "md5").hexdigest()
    if path.parent.name + path.name.removesuffix(".dir") == md5:
        return None
    return "DVC's cached copy is damaged; delete it, and what was checked out from it; `dvc repro` makes it anew"
