"""A table of the faults that were tried, after `make faults`."""

import pytest

from tests.faults import stores

FAULT = "fault"


@pytest.fixture
def undisturbed(request, cache, tmp_path):
    """Do a kind of work where nothing disturbs it, in the test's directory."""

    def work(name):
        attacked = request.getfixturevalue("finished_run") / "runs" if name == "attack" else None
        return stores.undisturbed(name, tmp_path, attacked)

    return work


@pytest.fixture
def tally(record_property):
    """Note how often a fault was tried and survived."""

    def note(fault, *, tried):
        record_property(FAULT, [fault, tried])

    return note


def pytest_terminal_summary(terminalreporter):
    rows = [
        (*value, report.duration)
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, value in report.user_properties
        if name == FAULT
    ]
    if rows:
        terminalreporter.write_sep("=", "faults")
        terminalreporter.write_line(f"{'fault':<60}{'survived':>9}{'seconds':>9}")
        for fault, tried, seconds in sorted(rows):
            terminalreporter.write_line(f"{fault:<60}{tried:>9}{seconds:>9.0f}")
        terminalreporter.write_line(f"{'all':<60}{sum(row[1] for row in rows):>9}")
