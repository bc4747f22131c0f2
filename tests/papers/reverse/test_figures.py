"""The figures of reverse adversarial examples are absent without their measures."""

from tests.reporting import synthetic
from turncoat.papers.reverse import figures
from turncoat.reporting.study import Study


def test_without_the_measures_there_is_no_figure(study: Study) -> None:
    assert synthetic.draw(study, figures.severities, "standard", "mart") is None
