"""Counts what is tried and what comes of it; a table at the end of the tests."""

import time

import pytest

SECONDS, MEGABYTES = 30, 2500  # that a case may take, on a busy machine
COLUMNS = ["tried", "right", "refused", "wrong"]
ROWS = {}


def memory():
    """Most megabytes that this process has had."""
    import resource  # here: Windows has none

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Tally:
    """Counts cases: right, refused by an error that names what it is about, wrong."""

    def __init__(self):
        self.right, self.refused, self.wrong = 0, 0, []
        self.memory = memory()

    def row(self):
        wrong = len(self.wrong)
        return [self.right + self.refused + wrong, self.right, self.refused, wrong]

    def add(self, case, fits, said="", name=""):
        """Adds a case: what came of it fits, or its error `said` names `name`."""
        sentence = "Traceback" not in said and len(said) < 2000
        if said and name and str(name) in said and sentence:
            self.refused += 1
        elif fits and not said:
            self.right += 1
        else:
            self.wrong.append(f"{case}: {said[-500:] or 'another result'}")

    def judge(self, name, call, *args, error=ValueError, fits=lambda result: True):
        """Calls; returns what comes of it, or None after an error of that kind."""
        began, result, said = time.monotonic(), None, ""
        try:
            result = call(*args)
        except error as refused:
            said = str(refused)
        assert time.monotonic() - began < SECONDS, f"{name} takes long"
        assert memory() - self.memory < MEGABYTES, f"{name} takes much memory"
        self.add(name, said or fits(result), said, name)
        return result


@pytest.fixture
def tally(record_property, request):
    """Counts the cases of a test, which fails if one of them is wrong."""
    counts = Tally()
    yield counts
    record_property("faults", (request.node.name, counts.row()))
    assert counts.row()[0] and not counts.wrong, "\n".join(counts.wrong[:20])


def pytest_runtest_logreport(report):
    ROWS.update(row for what, row in report.user_properties if what == "faults")


def pytest_terminal_summary(terminalreporter):
    total = [sum(numbers) for numbers in zip(*ROWS.values(), strict=True)]
    table = {"": COLUMNS} | ROWS | {"in all": total}
    for name, cells in table.items() if ROWS else ():
        terminalreporter.write_line(f"{name:48}" + "".join(f"{c:>8}" for c in cells))
