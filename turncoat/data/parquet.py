"""Images in Parquet files as Hugging Face's hub keeps them (`source: parquet`), read with pyarrow alone.

What its library's `save_to_disk` writes, the same columns in Arrow's stream format, is read too.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from turncoat.data.own import Raw, located
from turncoat.data.pictures import gather
from turncoat.data.store import Split
from turncoat.errors import TurncoatError
from turncoat.files import sha256

if TYPE_CHECKING:
    import pyarrow as pa

SPLITS = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation", "test": "test"}
BATCH = 64  # rows in memory at a time
KINDS = (".parquet", ".arrow")


@dataclass(frozen=True)
class _Table:
    """A file of rows: `batches(columns)` reads it anew each time, some rows at a time."""

    schema: "pa.Schema"
    rows: int
    batches: "Callable[[list[str]], Iterator[pa.RecordBatch]]"


def read(path: str, size: tuple[int, int] | None) -> Raw:
    """Read a Parquet file, or all in a folder: `train-*.parquet`, `test-*.parquet` or `train/*.parquet` and so on.

    Args:
        path: file or folder, see `own.located`.
        size: height and width that images are brought to, or None: all have one size.

    Raises:
        TurncoatError: no file, none for training, columns of another form, or images that cannot be used.
    """
    try:
        import pyarrow as pa
    except ImportError as error:
        raise TurncoatError("source parquet needs pyarrow: pip install pyarrow") from error
    root = located(path)
    files = [file for ending in KINDS for file in root.rglob(f"*{ending}")] if root.is_dir() else [root]
    of_split = {file: _split(file, root) for file in files if not file.name.startswith((".", "cache-"))}
    if "train" not in of_split.values():
        raise TurncoatError(f"{path}: no file train*.parquet or folder train among its {len(of_split)} Parquet files")
    ordered = sorted(of_split, key=lambda file: (list(SPLITS).index(of_split[file]), file))
    try:
        tables = [_table(file) for file in ordered]
    except (OSError, pa.ArrowException) as error:
        raise TurncoatError(f"{path}: no readable Parquet file ({error})") from error
    image, label, classes = _columns(tables[0].schema, path)
    labels: dict[str, list[int]] = {}

    def entries() -> Iterator[tuple[str, bytes]]:
        for file, table in zip(ordered, tables, strict=True):
            row, own = 0, labels.setdefault(of_split[file], [])
            for batch in table.batches([image, label]):
                numbers = batch.column(label).to_pylist()
                for number, content in zip(numbers, batch.column(image).to_pylist(), strict=True):
                    held = (content["bytes"] if isinstance(content, dict) else content) or b""
                    own.append(-1 if number is None else number)
                    yield f"{file.relative_to(root.parent)} row {row}", held
                    row += 1

    count = sum(table.rows for table in tables)
    try:
        made = gather(entries(), count, size, path)
    except (OSError, KeyError, pa.ArrowException) as error:
        raise TurncoatError(f"{path}: cannot be read ({error})") from error
    parts: dict[str, Split] = {}
    start = 0
    for split, own in labels.items():
        parts[split] = Split(made.images[start : start + len(own)], np.asarray(own, dtype=np.int64))
        start += len(own)
    return Raw(
        parts["train"],
        parts.get("test"),
        classes or tuple(map(str, range(max(max(own, default=0) for own in labels.values()) + 1))),
        parts.get("validation"),
        read={
            "files": len(ordered),
            "bytes": sum(file.stat().st_size for file in ordered),
            "sha256": {str(file.relative_to(root.parent)): sha256(file) for file in ordered},
        },
        notes=made.notes,
    )


def _table(file: Path) -> _Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if file.suffix != ".arrow":
        table = pq.ParquetFile(file)
        return _Table(
            table.schema_arrow, table.metadata.num_rows, lambda columns: table.iter_batches(BATCH, columns=columns)
        )
    with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as stream:
        schema, rows = stream.schema, sum(batch.num_rows for batch in stream)

    def batches(columns: list[str]) -> "Iterator[pa.RecordBatch]":
        with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as stream:
            for batch in stream:
                for start in range(0, batch.num_rows, BATCH):
                    yield batch.select(columns).slice(start, BATCH)

    return _Table(schema, rows, batches)


def _split(file: Path, root: Path) -> str:
    """The split of `train-00000-of-00002.parquet` or `train/0000.parquet`; a single file is all for training."""
    if file == root:
        return "train"
    for name in (file.name, *(parent.name for parent in file.parents)):
        for start, split in SPLITS.items():
            if name.lower() == start or name.lower().startswith((f"{start}-", f"{start}.", f"{start}_")):
                return split
    return "train"


def _columns(schema: "pa.Schema", path: str) -> tuple[str, str, tuple[str, ...]]:
    """The columns of images and labels, and the classes' names where Hugging Face's metadata has them."""
    import pyarrow as pa

    said = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    kinds: dict[str, Any] = {name: about.get("_type") for name, about in said.items() if isinstance(about, dict)}
    images = [
        field.name
        for field in schema
        if pa.types.is_binary(field.type)
        or (pa.types.is_struct(field.type) and "bytes" in [part.name for part in field.type])
    ]
    whole = [field.name for field in schema if pa.types.is_integer(field.type)]
    labels = [name for name in whole if kinds.get(name) == "ClassLabel"] or [
        n for n in ("label", "labels") if n in whole
    ]
    if len(images) != 1 or len(labels) != 1:
        found = ", ".join(f"{field.name}: {field.type}" for field in schema)
        raise TurncoatError(
            f"{path}: one column of images (struct of bytes and path, or binary) and one of labels (whole numbers "
            f"named label, or a ClassLabel) wanted; there are {found}"
        )
    return images[0], labels[0], tuple(map(str, said.get(labels[0], {}).get("names", ())))
