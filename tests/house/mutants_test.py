"""tests/mutants: the patches fit the code as it is, and none of the faults that must be found is missing."""
import importlib.machinery
import importlib.util
import os
import subprocess
import sys

import pytest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests", "mutants"))

import patches  # noqa: E402

PATCHES = patches.load()


def runner():
    loader = importlib.machinery.SourceFileLoader("mutants_run", os.path.join(TOP, "tests", "mutants", "run"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", sorted(PATCHES))
def test_applies(name):
    done = subprocess.run(["patch", "-p1", "--dry-run", "-F2", "-r", "-", "-i", PATCHES[name].path], cwd=TOP, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_must_be_found():
    named = {patch.issue for patch in PATCHES.values() if patch.issue}
    assert named == set(runner().MUST)
    assert len(PATCHES) >= 15


@pytest.mark.parametrize("name", sorted(PATCHES))
def test_has_a_finder(name):
    for finder in PATCHES[name].finders:
        assert hasattr(runner().Scratch, "with_" + finder.split(" ")[0]), finder
