"""The table of counts: what was tried, and what came of it."""

import pytest
from damage import Tally


@pytest.fixture
def tally(record_property, request):
    """Counts the cases of a test, which fails if one of them is wrong."""
    counts = Tally()
    yield counts
    numbers = [counts.tried, counts.right, counts.refused, len(counts.wrong)]
    record_property("faults", [request.node.name, *numbers])
    assert counts.tried and not counts.wrong, "\n".join(counts.wrong[:20])


def pytest_terminal_summary(terminalreporter):
    reports = [r for kind in terminalreporter.stats.values() for r in kind]
    found = [dict(r.user_properties) for r in reports if hasattr(r, "user_properties")]
    rows = {row["faults"][0]: row["faults"][1:] for row in found if "faults" in row}
    if rows:
        rows["in all"] = [sum(column) for column in zip(*rows.values(), strict=True)]
        terminalreporter.write_line(f"{'':48}   tried   right refused   wrong")
        for name, numbers in rows.items():
            cells = "".join(f"{number:8}" for number in numbers)
            terminalreporter.write_line(f"{name[:47]:48}{cells}")
