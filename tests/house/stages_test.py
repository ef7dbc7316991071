"""tools/stages and tools/unit-run: what is counted, and what makes the run fail."""
import importlib.machinery
import importlib.util
import os
import stat
import subprocess

import pytest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def load(name):
    loader = importlib.machinery.SourceFileLoader(name.replace("-", "_"), os.path.join(TOP, "tools", name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


@pytest.fixture
def stages(tmp_path, monkeypatch):
    module = load("stages")
    monkeypatch.setattr(module, "TOP", str(tmp_path))
    monkeypatch.delenv("CI", raising=False)
    return module


def script(folder, text):
    path = folder / "stage"
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


# what the stage's script does, CI, exit code of the run, last line, something printed before it
RUNS = [
    ("echo '3 passed, 0 failed'", False, 0, "3 passed, 0 failed", ""),
    ("echo 'FAIL a: because'; echo '3 passed, 1 failed'; exit 1", False, 1, "3 passed, 1 failed", "failed a: because"),
    ("echo '3 passed, 1 failed'", False, 1, "3 passed, 1 failed", "failed one #1"),
    ("echo '3 passed, 0 failed'; exit 9", False, 1, "3 passed, 1 failed", "ended with 9"),
    ("exit 0", False, 1, "0 passed, 0 failed", "No test ran"),
    ("echo 'SKIP b: no root'; echo '1 passed, 0 failed, 1 skipped'", False, 0, "1 passed, 0 failed", "skipped b: no root"),
    ("echo 'SKIP b: no root'; echo '1 passed, 0 failed, 1 skipped'", True, 1, "1 passed, 0 failed", "fails under CI"),
    ("sleep 30", False, 1, "0 passed, 1 failed", "stopped after 1 s"),
]


@pytest.mark.parametrize("body,ci,code,last,said", RUNS)
def test_run(stages, tmp_path, monkeypatch, capsys, body, ci, code, last, said):
    path = script(tmp_path, body)
    monkeypatch.setattr(stages, "STAGES", [("one", path, [path], "lines", 1 if "sleep" in body else 30, "a stage")])
    monkeypatch.chdir(tmp_path)
    if ci:
        monkeypatch.setenv("CI", "true")
    assert stages.main([]) == code
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == last
    assert said in out


def test_a_stage_that_does_not_exist_yet_is_no_stage(stages, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(stages, "STAGES", [("one", "nowhere/run", ["nowhere/run"], "lines", 5, "a stage")])
    assert stages.main([]) == 1
    assert "No test ran." in capsys.readouterr().out


def test_a_unit_program_that_dies_is_a_failed_test(tmp_path):
    path = script(tmp_path, "kill -SEGV $$")
    done = subprocess.run(["/usr/bin/python3", os.path.join(TOP, "tools/unit-run"), path], stdout=subprocess.PIPE,
                          text=True, check=False)
    assert done.returncode == 1
    assert "signal 11" in done.stdout
    assert done.stdout.splitlines()[-1] == "0 passed, 1 failed, 0 skipped"


def test_unit_marks_are_counted(tmp_path):
    path = script(tmp_path, "echo '[       OK ] a'; echo '[  SKIPPED ] b'; echo '[  FAILED  ] c'; exit 1")
    done = subprocess.run(["/usr/bin/python3", os.path.join(TOP, "tools/unit-run"), path], stdout=subprocess.PIPE,
                          text=True, check=False)
    assert done.stdout.splitlines()[-1] == "1 passed, 1 failed, 1 skipped"


def test_a_sanitizer_report_fails_the_run_whatever_the_stage_says(stages, tmp_path, monkeypatch, capsys):
    body = """echo '1 passed, 0 failed'; echo 'SUMMARY: ThreadSanitizer: data race' >"${TSAN_OPTIONS##*log_path=}.1" """
    path = script(tmp_path, body)
    monkeypatch.setattr(stages, "STAGES", [("one", path, [path], "lines", 30, "a stage")])
    monkeypatch.chdir(tmp_path)
    assert stages.main(["--flavour", "tsan"]) == 1
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "1 passed, 1 failed"
    assert "failed one: sanitizer: ThreadSanitizer: data race" in out
