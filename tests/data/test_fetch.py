"""Fetching: verified before use, several addresses in turn, never a part for the whole; every layout of a mirror."""

import logging
import os
from pathlib import Path

import pytest

from tests.data.tiny import put, raw_file, serve
from turncoat.data import fetch
from turncoat.data.fetch import WrongFile, download, in_mirror, obtain, verify
from turncoat.errors import TurncoatError

CONTENT = bytes(range(256)) * 4000


def test_download_verifies_and_leaves_no_part(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with serve({"/f.gz": (200, CONTENT)}) as (url, _):
        download(raw_file("f.gz", CONTENT, f"{url}/f.gz"), tmp_path / "cache/f.gz")
    assert (tmp_path / "cache/f.gz").read_bytes() == CONTENT
    assert os.listdir(tmp_path / "cache") == ["f.gz"]
    assert capfd.readouterr() == ("", "")  # no terminal, no progress bar


def test_addresses_are_tried_in_turn(tmp_path: Path) -> None:
    pages = {
        "/truncated/f.gz": (206, CONTENT[:-5000]),
        "/short/f.gz": (200, CONTENT[:-1]),
        "/other/f.gz": (200, CONTENT[::-1]),
        "/endless/f.gz": (200, CONTENT + b"!"),
        "/good/f.gz": (200, CONTENT),
    }
    with serve(pages) as (url, asked):
        places = ["absent", "truncated", "short", "other", "endless", "good", "never"]
        file = raw_file("f.gz", CONTENT, "http://127.0.0.1:9/f.gz", *(f"{url}/{place}/f.gz" for place in places))
        download(file, tmp_path / "f.gz")
        assert asked == [f"/{place}/f.gz" for place in places[:-1]]
    assert (tmp_path / "f.gz").read_bytes() == CONTENT


def test_failure_gives_the_reason_of_every_address_and_leaves_nothing(tmp_path: Path) -> None:
    pages = {"/truncated": (206, CONTENT[:-5000]), "/other": (200, CONTENT[::-1]), "/endless": (200, CONTENT * 2)}
    with serve(pages) as (url, _):
        urls = ["http://127.0.0.1:9/f", *(f"{url}/{page}" for page in ("absent", "truncated", "other", "endless"))]
        with pytest.raises(ConnectionError) as caught:
            download(raw_file("f", CONTENT, *urls), tmp_path / "f")
    message = str(caught.value)
    for reason in (
        "refused",
        "Not Found",
        "ended after 1,019,000 of 1,024,000 bytes",
        "sent another file",
        "sent more",
    ):
        assert reason in message
    assert list(tmp_path.iterdir()) == []


def test_a_silent_host_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr(fetch, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts, never answers
        port = server.getsockname()[1]
        with pytest.raises(ConnectionError, match="timed out"):
            download(raw_file("f", CONTENT, f"http://127.0.0.1:{port}/f"), tmp_path / "f")


def test_second_time_comes_from_the_cache(tmp_path: Path) -> None:
    with serve({"/f.gz": (200, CONTENT)}) as (url, asked):
        file = raw_file("x/f.gz", CONTENT, f"{url}/f.gz")
        paths = [obtain((file,), "toy", tmp_path) for _ in range(2)]
        assert asked == ["/f.gz"]
    assert paths == [[tmp_path / "x/f.gz"]] * 2


def test_a_damaged_cache_is_fetched_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path, {"f.gz": CONTENT[:100]})
    with serve({"/f.gz": (200, CONTENT)}) as (url, _), caplog.at_level(logging.WARNING):
        obtain((raw_file("f.gz", CONTENT, f"{url}/f.gz"),), "toy", tmp_path)
    assert (tmp_path / "f.gz").read_bytes() == CONTENT
    assert "f.gz: 100 bytes, but the published file has 1,024,000" in caplog.text


def test_verify_compares_size_then_md5(tmp_path: Path) -> None:
    file = raw_file("f", CONTENT)
    put(tmp_path, {"f": CONTENT, "short": CONTENT[1:], "flipped": b"\x01" + CONTENT[1:]})
    verify(tmp_path / "f", file.md5, file.size)
    with pytest.raises(WrongFile, match="short: 1,023,999 bytes, but the published file has 1,024,000"):
        verify(tmp_path / "short", file.md5, file.size)
    with pytest.raises(WrongFile, match=f"flipped: md5 .*, but the published file has {file.md5}"):
        verify(tmp_path / "flipped", file.md5, file.size)


@pytest.mark.parametrize(
    "place",
    ["MNIST/raw/f.gz", "mnist/MNIST/raw/f.gz", "mnist/raw/f.gz", "mnist/f.gz", "MNIST/f.gz", "raw/f.gz", "f.gz"],
)
def test_mirror_layouts(tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNCOAT_MIRROR", str(put(tmp_path / "mirror", {place: CONTENT})))
    found = obtain((raw_file("MNIST/raw/f.gz", CONTENT),), "mnist", tmp_path / "cache")
    assert found == [tmp_path / "mirror" / place]
    assert not (tmp_path / "cache").exists()


def test_of_two_files_with_one_name_the_right_one_is_taken(tmp_path: Path) -> None:
    put(tmp_path, {"f.gz": b"of the other data set", "MNIST/f.gz": CONTENT})
    assert in_mirror(raw_file("MNIST/raw/f.gz", CONTENT), "mnist", tmp_path) == tmp_path / "MNIST/f.gz"


def test_unpacked_archives_in_a_mirror_are_verified_file_by_file(tmp_path: Path) -> None:
    parts = {"toy-py/a": b"one", "toy-py/b": b"two"}
    file = raw_file("toy.tar.gz", CONTENT, unpacked={path: raw_file(path, part).md5 for path, part in parts.items()})
    assert in_mirror(file, "toy", put(tmp_path / "whole", parts)) == tmp_path / "whole/toy-py"
    with pytest.raises(WrongFile, match=r"toy-py/b: missing; copy it there, or toy\.tar\.gz beside"):
        in_mirror(file, "toy", put(tmp_path / "part", {"toy-py/a": b"one"}))
    with pytest.raises(WrongFile, match="toy-py/b: md5"):
        in_mirror(file, "toy", put(tmp_path / "wrong", parts | {"toy-py/b": b"too"}))


def test_a_wrong_file_in_the_mirror_stops_although_the_network_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TURNCOAT_MIRROR", str(put(tmp_path / "mirror", {"f.gz": CONTENT[:-1]})))
    with serve({"/f.gz": (200, CONTENT)}) as (url, asked):
        with pytest.raises(WrongFile, match=r"mirror/f\.gz: 1,023,999 bytes"):
            obtain((raw_file("f.gz", CONTENT, f"{url}/f.gz"),), "toy", tmp_path / "cache")
        assert asked == []


def test_what_the_mirror_lacks_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNCOAT_MIRROR", str(put(tmp_path / "mirror", {"unrelated": b""})))
    with serve({"/f.gz": (200, CONTENT)}) as (url, _):
        found = obtain((raw_file("f.gz", CONTENT, f"{url}/f.gz"),), "toy", tmp_path / "cache")
    assert found == [tmp_path / "cache/f.gz"]


def test_a_mirror_that_is_no_folder_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNCOAT_MIRROR", str(tmp_path / "gone"))
    with pytest.raises(TurncoatError, match=r"TURNCOAT_MIRROR=.*gone: no such folder"):
        obtain((raw_file("f.gz", CONTENT),), "toy", tmp_path)
