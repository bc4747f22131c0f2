"""One sentence a paper, by rule from its verdicts: each word, mixtures, controls, and what is to be read beside it."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turncoat.papers import chapters
from turncoat.reporting.claims import Claim, Measurement, Paper
from turncoat.reporting.conclusions import SAID, Conclusion, conclude, tally
from turncoat.reporting.statistics import Interval
from turncoat.reporting.tables import points
from turncoat.reporting.verdicts import WORDS, Verdict, Word

MART = chapters.load(["mart"])[0].paper
WITHOUT_NUMBER: set[Word] = {"not run"}


def paper_of(*kinds: str) -> Paper:
    """A paper with a claim of each kind, `claim-0`, `claim-1`, ..."""
    measured = Measurement(metric="worst", arm="mart", against="pgd", direction="higher", margin=1.0)
    claims = [
        Claim.model_validate(
            {"id": f"claim-{i}", "kind": kind, "says": f"Claim {i} is so.", "where": "somewhere", "datasets": []}
            | {"reported": "unavailable", "measured": measured.model_dump()}
        )
        for i, kind in enumerate(kinds)
    ]
    return MART.model_copy(update={"claims": claims})


def verdict(place: int, word: Word, effect: float = 2.5, **more: Any) -> Verdict:
    interval = Interval(effect - 1, effect + 1)
    numbers: dict[str, Any] = {} if word in WITHOUT_NUMBER else {"effect": effect, "interval": interval}
    return Verdict("mart", f"claim-{place}", "digits", word, "why", False, False, **numbers | more)


def said(*words: Word, kinds: tuple[str, ...] = (), **more: Any) -> Conclusion:
    """The conclusion on headline claims (or of other `kinds`) with these words; effects are 2.5, 3.5, ..."""
    paper = paper_of(*(kinds or ["headline"] * len(words)))
    verdicts = [verdict(i, word, 2.5 + i, **more if i == 0 else {}) for i, word in enumerate(words)]
    return conclude(paper, verdicts, "digits")


@pytest.mark.parametrize("word", [word for word in WORDS if word not in WITHOUT_NUMBER])
def test_one_headline_is_told_by_its_word_and_number(word: Word) -> None:
    found = said(word)
    assert found.word == word
    assert (
        found.text
        == f"The headline claim {SAID[word][0]} on digits: “Claim 0 is so” was measured at +2.50 points "
        + ("[+1.50,\u00a0+3.50].")
    )
    assert (found.number, found.claim) == ("+2.50 points", "claim-0")


def test_nothing_run_is_told_without_a_number() -> None:
    found = said("not run", "not run", "not run")
    assert found.text == "None of the 3 headline claims was run on digits, nor was any other claim of the paper."
    assert (found.word, found.number, found.claim) == ("not run", "", "")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["inconclusive"] * 2, "Both headline claims are inconclusive on digits"),
        (["reproduced"] * 3, "All 3 headline claims are reproduced on digits"),
        (["not run"], "The headline claim was not run on digits"),
        (["not run"] * 2, "Neither headline claim was run on digits"),
        (["not run"] * 4, "None of the 4 headline claims was run on digits"),
        (
            ["inconclusive", "direction holds", "not run", "not run"],
            "Of 4 headline claims on digits, 1 holds in direction, 1 is inconclusive and 2 were not run",
        ),
    ],
)
def test_claims_are_counted_in_words(words: list[Word], text: str) -> None:
    assert tally(words, "headline claim", " on digits") == text


@pytest.mark.parametrize(
    ("words", "carrying"),
    [
        (("inconclusive", "not reproduced", "direction holds"), 1),  # the first that is decided, good news or bad
        (("not run", "unreliable", "one seed only"), 2),
        (("inconclusive", "inconclusive"), 0),
    ],
)
def test_the_firmest_of_the_headlines_carries_the_sentence(words: tuple[Word, ...], carrying: int) -> None:
    found = said(*words)
    assert (found.claim, found.word) == (f"claim-{carrying}", words[carrying])
    assert found.number == f"+{2.5 + carrying:.2f} points"


def test_without_a_measured_headline_another_claim_carries_it() -> None:
    found = said("not run", "inconclusive", "not reproduced", kinds=("headline", "supporting", "control"))
    told, rest = found.before.split("; ")
    assert told == "The headline claim was not run on digits"
    assert rest.startswith("of its other claims 1 is not reproduced and 1 is inconclusive: “Claim 2")
    assert found.word == "not reproduced"


@pytest.mark.parametrize(
    ("headline", "controls", "text"),
    [
        ("direction holds", ["not run", "not run"], "; neither control was run."),
        ("direction holds", ["direction holds"], "; the control holds in direction."),
        (
            "reproduced",
            ["not reproduced", "inconclusive"],
            "; of 2 controls, 1 is not reproduced and 1 is inconclusive.",
        ),
    ],
)
def test_a_claim_that_holds_is_told_with_its_controls(headline: Word, controls: list[Word], text: str) -> None:
    kinds = ("headline", *["control"] * len(controls))
    assert said(headline, *controls, kinds=kinds).after.endswith(text)
    assert "control" not in said("inconclusive", *controls, kinds=kinds).text


def test_marks_and_seeds_stand_behind_the_number() -> None:
    assert said("direction holds", note="pgd-20 overstates").after.endswith("] ‡.")
    assert said("direction holds", p_value=0.01, p_holm=0.2).after.endswith("] §.")
    assert said("inconclusive", seeds_needed=7).after.endswith("]; 7 seeds would decide it.")


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=5), st.data())
def test_the_number_is_that_of_the_claim_that_is_quoted(words: list[Word], data: st.DataObject) -> None:
    effects = data.draw(st.lists(st.floats(-50, 50), min_size=len(words), max_size=len(words)))
    verdicts = [verdict(i, word, effect) for i, (word, effect) in enumerate(zip(words, effects, strict=True))]
    found = conclude(paper_of(*["headline"] * len(words)), verdicts, "digits")
    if found.claim:
        place = int(found.claim.removeprefix("claim-"))
        assert found.word == words[place]
        assert found.number == f"{points(effects[place])} points"
        assert f"“Claim {place} is so”" in found.before
    else:
        assert set(words) == {"not run"}
    assert found.text.count(".") - len(re.findall(r"\d\.\d", found.text)) == 1  # one sentence


def test_other_papers_and_data_sets_say_nothing() -> None:
    paper = paper_of("headline")
    verdicts = [verdict(0, "inconclusive")]
    others = [
        Verdict("rat", "claim-0", "digits", "reproduced", "", True, False, 9.0, Interval(8, 10)),
        Verdict("mart", "claim-0", "cifar10", "reproduced", "", True, False, 9.0, Interval(8, 10)),
    ]
    assert conclude(paper, [*others, *verdicts], "digits") == conclude(paper, verdicts, "digits")
