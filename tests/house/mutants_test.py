"""tests/mutants: the patches fit the code as it is, and none of the faults that must be found is missing."""
import importlib.machinery
import importlib.util
import os
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
    patches.git_apply(PATCHES[name], TOP, "--check")


def test_what_must_be_found():
    named = {patch.issue for patch in PATCHES.values() if patch.issue}
    assert named == set(runner().MUST)
    assert len(PATCHES) >= 15


@pytest.mark.parametrize("name", sorted(PATCHES))
def test_has_a_finder(name):
    for finder in PATCHES[name].finders:
        kind, *words = finder.split(" ")
        assert hasattr(runner().Scratch, "with_" + kind), finder
        assert not words or os.path.exists(os.path.join(TOP, "src/%s.c" % words[0] if kind == "unit" else words[0])), finder
