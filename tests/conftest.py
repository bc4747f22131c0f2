"""What all tests share."""

import os

from tests.defaults import DEFAULTS
from tests.faults import table

os.environ.setdefault("TURNCOAT_TRACKING", "off")  # the tests of tracking turn it on for themselves


def pytest_report_header():
    if (DEFAULTS.parents[1] / DEFAULTS.name).read_text() != DEFAULTS.read_text():
        return "params.yaml is not what the project ships with: the tests run on tests/params.yaml instead"
    return None


def pytest_configure(config):
    config.addinivalue_line("markers", "fault(number, done, happens): brings about one of tests/faults/table.py")


def pytest_collection_modifyitems(items):
    for item in items:
        for mark in item.iter_markers("fault"):
            number, done, happens = mark.args
            assert number in table.FAULTS, f"{item.nodeid}: there is no fault {number}"
            item.user_properties.append(("fault", (number, done, happens)))


def pytest_terminal_summary(terminalreporter):
    if "fault" in terminalreporter.config.option.markexpr:
        outcomes = ("passed", "failed", "skipped", "error", "")  # "": set-up and clean-up that went well
        reports = [report for name in outcomes for report in terminalreporter.stats.get(name, ())]
        terminalreporter.section("faults: what was done, what happened")
        terminalreporter.write_line("\n".join(table.lines(reports)))
