"""A pytest plugin of `run`: one line of JSON per test, with its name, outcome and the last line of its error."""
import json
import os

OUT = os.environ.get("MILLRACE_SUITES_OUT")
LEFT_OUT = json.loads(os.environ.get("MILLRACE_SUITES_LEFT_OUT", "[]"))
outcomes = {}


def pytest_collection_modifyitems(config, items):
    left = [item for item in items if any(part in item.nodeid for part in LEFT_OUT)]
    if left:
        items[:] = [item for item in items if item not in left]
        config.hook.pytest_deselected(items=left)


def pytest_deselected(items):
    for item in items:
        write(item.nodeid, "left out", "")


def pytest_runtest_logreport(report):
    """Setup, call and teardown each report; the worst of them counts."""
    rank = ("passed", "skipped", "failed")
    before = outcomes.get(report.nodeid, ("passed", ""))
    if rank.index(report.outcome) > rank.index(before[0]):
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr).strip().splitlines()[-1]
        before = (report.outcome, why)
    outcomes[report.nodeid] = before
    if report.when == "teardown":
        write(report.nodeid, *before)


def pytest_collectreport(report):
    if report.failed:
        write(report.nodeid, "failed", str(report.longrepr).strip().splitlines()[-1])


def write(name, outcome, why):
    if OUT:
        with open(OUT, "a", encoding="utf-8") as out:
            out.write(json.dumps([name, outcome, why]) + "\n")
