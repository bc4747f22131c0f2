"""Figures on the page and in the files: rows without holes, dark colours, names beside points, honest lines."""

import re
from collections.abc import Iterator, Sequence
from itertools import accumulate, combinations, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reporting import synthetic
from turncoat.papers import chapters
from turncoat.papers.reverse.figures import met_by_all
from turncoat.reporting import drawing, panels, style, words
from turncoat.reporting.drawing import Drawn
from turncoat.reporting.figures import heat_map
from turncoat.reporting.labels import spread
from turncoat.reporting.pictures import DARK, FULL, dark, in_rows, of_page, rows, size
from turncoat.reporting.study import Study
from turncoat.reporting.style import joined, looks

GROUPS = {"MART": ["standard", "pgd", "mart", "mart-no-kl"], "other arms": ["standard", "trades"]}


@pytest.fixture(autouse=True)
def _no_figure_stays_open() -> Iterator[None]:
    yield
    from matplotlib import pyplot as plt

    plt.close("all")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    root = tmp_path_factory.mktemp("pictures")
    synthetic.write(root, n=100)
    return synthetic.study(root)


@given(st.lists(st.floats(0.7, 2.5), min_size=1, max_size=8))
def test_no_other_way_to_cut_the_figures_gives_rows_more_alike(shapes: list[float]) -> None:
    def cost(ends: Sequence[int]) -> float:
        off = [(sum(shapes[start:end]) - FULL) / FULL for start, end in pairwise([0, *ends])]
        return sum(width * width * (4 if width < 0 else 1) for width in off)

    counts = rows(shapes)
    assert sum(counts) == len(shapes)
    assert max(counts) <= 4
    last = len(shapes)
    ways = [[*some, last] for many in range(last) for some in combinations(range(1, last), many)]
    fit = [ends for ends in ways if all(end - start <= 4 for start, end in pairwise([0, *ends]))]
    assert cost(list(accumulate(counts))) <= min(map(cost, fit)) + 1e-9


def test_pictures_keep_their_order() -> None:
    many: Any = [SimpleNamespace(shape=shape, name=name) for name, shape in enumerate([1.3] * 7 + [1.75])]
    assert [picture.name for row in in_rows(many) for picture in row] == list(range(8))  # type: ignore[attr-defined]
    assert [len(row) for row in in_rows(many)][:2] == [3, 3]


def test_a_figure_has_its_size_and_a_dark_variant_that_leaves_shades_alone(built: Path) -> None:
    folder = built / "reports/figures"
    for path in sorted(folder.glob("*.svg")):
        svg = path.read_text()
        width, height = size(svg)
        assert f'viewBox="0 0 {width:g} {height:g}"' in svg
        other = dark(svg)
        assert len(other) > len(svg)
        assert "@media screen and (prefers-color-scheme:dark){svg{fill:" in other
        assert other.replace(re.findall(r"<style>@media.*?</style>", other)[0], "") == svg
    assert not {style.ON_LIGHT, style.ON_DARK} & set(DARK)
    text = (folder / "heat-map-digits.svg").read_text()
    assert f"fill: {style.ON_LIGHT}" in text
    assert f"fill: {style.ON_DARK}" in text


def test_every_colour_of_an_arm_is_seen_on_dark_paper() -> None:
    def luminance(colour: str) -> float:
        red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    page = luminance(DARK["#ffffff"])
    for colour in (*style.COLOURS, style.GREY):
        shown = DARK.get(colour.lower(), colour)
        assert (luminance(shown) + 0.05) / (page + 0.05) > 4.5, colour  # as WCAG has contrast


def test_only_what_the_page_does_not_tell_otherwise_is_on_it(built: Path) -> None:
    folder = built / "reports/figures"
    drawn = [
        Drawn(name, "", "digits", "t", "a", name != "heat-map-digits") for name in ("cost-digits", "heat-map-digits")
    ]
    found = of_page(folder, drawn)
    assert [picture.figure.name for row in found["", "digits"] for picture in row] == ["cost-digits"]
    page = (built / "reports/report.html").read_text()
    assert "figures/cost-digits" in page
    assert "figures/heat-map-digits" not in page


@given(st.lists(st.floats(0, 1), max_size=12), st.floats(0.01, 0.3))
def test_names_do_not_cover_each_other(wanted: list[float], gap: float) -> None:
    order = sorted(wanted)
    places = spread(order, gap)
    room = min(gap, 1 / max(len(order) - 1, 1))
    assert all(b - a >= room - 1e-9 for a, b in pairwise(places))
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in places)
    if all(b - a >= room for a, b in pairwise(order)):
        assert places == pytest.approx(order, abs=1e-6)


@pytest.mark.parametrize(("count", "line"), [(1, "none"), (2, "none"), (3, "solid")])
def test_no_line_joins_two_points(count: int, line: str) -> None:
    assert joined({"linestyle": "solid", "marker": "o"}, [0] * count)["linestyle"] == line
    assert joined({"linestyle": "solid", "marker": ""}, [0] * count)["marker"] == ("" if count > 2 else ".")


def test_both_sides_of_a_comparison_are_at_the_same_severities() -> None:
    lines = {"bare": ({1: 90.0, 2: 80.0, 3: 70.0, 4: 60.0, 5: 50.0}, 0), "reverse": ({5: 60.0, 1: 91.0, 3: 75.0}, 1)}
    assert met_by_all(lines | {"oracle": ({}, 2)}) == {
        "bare": ({1: 90.0, 3: 70.0, 5: 50.0}, 0),
        "reverse": ({1: 91.0, 3: 75.0, 5: 60.0}, 1),
    }


@pytest.mark.parametrize("name", sorted(panels.PANELS))
def test_a_figure_over_all_papers_comes_out_the_same_and_names_its_arms(
    study: Study, name: str, tmp_path: Path
) -> None:
    for time in ("first", "second"):
        with style.paper():
            picture = panels.PANELS[name][1](study, "digits", GROUPS, looks(study.settings.study.arms))
            assert picture
            style.save(picture[0], tmp_path / time, name)
    assert (tmp_path / f"first/{name}.svg").read_bytes() == (tmp_path / f"second/{name}.svg").read_bytes()
    assert "5 arms on digits" in picture[1]


def test_each_papers_arms_are_drawn_strongly_with_error_bars(study: Study) -> None:
    with style.paper():
        picture = panels.tradeoff(study, "digits", GROUPS, looks(study.settings.study.arms))
    assert picture
    shown = [axes for axes in picture[0].axes if axes.get_title(loc="left")]
    assert [axes.get_title(loc="left") for axes in shown] == list(GROUPS)
    for axes, arms in zip(shown, GROUPS.values(), strict=True):
        assert len(axes.containers) == len(arms)
        assert all(bar.has_xerr and bar.has_yerr for bar in axes.containers)  # type: ignore[attr-defined]
        assert {text.get_text() for text in axes.texts} == set(arms)


def test_rows_stand_by_paper_and_what_several_share_first() -> None:
    parts = panels.by_owner(GROUPS, dict.fromkeys(["mart", "trades", "standard", "pgd"]))
    assert parts == {panels.SHARED: ["standard"], "MART": ["pgd", "mart"], "other arms": ["trades"]}
    assert panels.by_owner({"MART": ["pgd", "mart"]}, {"mart": 0}) == {"": ["mart"]}


def test_a_study_without_a_papers_method_has_one_panel(tmp_path: Path) -> None:
    synthetic.write(tmp_path, n=50)
    few = synthetic.study(tmp_path, arms=["standard", "pgd"])
    assert drawing.grouped(few, "digits", chapters.load()) == {"all arms": ["standard", "pgd"]}


def test_the_heat_map_marks_what_the_table_marks(tmp_path: Path) -> None:
    synthetic.write(tmp_path, n=100)
    flag = {"name": "autoattack-gap", "attack": "pgd-20", "detail": "leaves 8.0 points more", "blocks": True}
    synthetic.edit(tmp_path, "digits/mart/1", lambda record: record["flags"].append(flag))
    study = synthetic.study(tmp_path)
    with style.paper():
        picture = heat_map(study, "digits", ["pgd", "mart"], {})
    assert picture
    assert [text.get_text()[-1] == "‡" for text in picture[0].axes[0].texts].count(True) == 1
    assert "‡ a blocking flag lies on it" in picture[1]


def test_attacks_and_terms_are_told_in_words() -> None:
    assert words.attack({"attack": "pgd", "steps": 10, "eot": 4, "loss": "margin", "restarts": 2}) == (
        "10 gradient steps within the radius (PGD), on the margin of the logits, from 2 starts, "
        "each gradient the mean over 4 draws of a random network (EOT)"
    )
    assert words.attack({"attack": "new-one"}) == "new-one"
    assert list(words.met(["It holds in the worst case, under PGD-20."])) == ["PGD", "worst case"]


def test_the_attacks_of_every_suite_have_words(built: Path) -> None:
    from turncoat.settings import load

    plans = [plan for suite in load().suites.values() for plan in suite.attacks.values()]
    assert {str(plan["attack"]) for plan in plans} <= set(words.KINDS)
