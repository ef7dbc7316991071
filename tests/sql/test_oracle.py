"""The long comparison of Nexmark with SQLite (`make nexmark-oracle`), over few events; and it says what differs."""
import importlib.machinery
import importlib.util
import json
import os

import pytest

from test_nexmark import PROGRAM

EVENTS = 4000
BATCHES = "100,1" if os.environ.get("MILLRACE_FLAVOUR", "release") == "release" else "7"
PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracle")


@pytest.fixture(name="oracle")
def oracle_module():
    loader = importlib.machinery.SourceFileLoader("oracle", PATH)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("oracle", loader))
    loader.exec_module(module)
    return module


def test_all_queries_are_equal(oracle, tmp_path, capsys):
    results = tmp_path / "results"
    arguments = ["--events", str(EVENTS), "--batches", BATCHES, "--folder", str(tmp_path / "files"), "--results", str(results)]
    assert oracle.main(arguments) == 0, capsys.readouterr().out
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    for order in oracle.ORDERS:
        names = {line["query"].split()[0].strip(",") for line in lines if line["order"] == order}
        assert names >= {f"q{n}" for n in range(23)}
    assert all(line["late"] == 0 for line in lines if line["order"] == "in-order")
    assert any(line["late"] > 10 for line in lines if line["order"] == "late"), "late rows were meant to be among them"
    capsys.readouterr()
    assert oracle.main(arguments) == 0
    assert capsys.readouterr().out == f"{len(lines)} equal, 0 differ\n", "what is among the results is not done again"


@pytest.mark.parametrize("theirs", ["SELECT auction, price + (auction = 1000) FROM bid", "SELECT auction, price FROM bid LIMIT 1000", "SELECT auction, price FROM bid UNION ALL SELECT 1, 1"])
def test_a_wrong_answer_is_found(oracle, tmp_path, theirs):
    db = oracle.database(str(tmp_path), "late", EVENTS)
    with pytest.raises(oracle.Differs, match="equal rows: Millrace has"):
        oracle.check(str(tmp_path), db, "q", "SELECT auction, price FROM bid", theirs, "late", EVENTS, [100])


def test_another_size_of_a_batch_is_looked_at(oracle, tmp_path, monkeypatch):
    fake = tmp_path / "fake"
    fake.write_text(f'#!/bin/sh\n[ "$2" = 7 ] && echo \'[1, 1]\'\nexec {PROGRAM} "$@"\n')
    fake.chmod(0o755)
    db = oracle.database(str(tmp_path), "in-order", 1000)
    monkeypatch.setattr(oracle, "PROGRAM", str(fake))
    with pytest.raises(oracle.Differs, match="7 rows a batch"):
        oracle.check(str(tmp_path), db, "q", "SELECT price FROM bid", "SELECT price FROM bid", "in-order", 1000, [100, 7])
