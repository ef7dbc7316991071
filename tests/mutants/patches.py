"""Deliberate faults of the broker as patches: NAME.patch begins with lines `Word: text`, then an empty line and a unified diff.

What: what it breaks. Issue: its name in the list of faults that must be found. Found by: what finds it, tried in this order.
"""
import contextlib
import glob
import os
import re
import shutil
import subprocess
from collections import namedtuple

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
PARTS = ("src", "tests", "docs", "tools", "Makefile", "LAYERS")     # what a scratch copy needs to build and to test

Patch = namedtuple("Patch", "name path what issue finders files")


class DoesNotApply(Exception):
    """The code has moved on: the patch is to be made anew (apply it by hand, see that it is still the same fault, `git diff`)."""


def load():
    out = {}
    for path in sorted(glob.glob(HERE + "/*.patch")):
        with open(path, encoding="utf-8") as source:
            head, _, diff = source.read().partition("\n\n")
        words = dict(line.split(": ", 1) for line in head.split("\n"))
        name = os.path.basename(path)[:-len(".patch")]
        out[name] = Patch(name, path, words["What"], words.get("Issue", ""), words["Found by"].split(", "),
                          re.findall(r"^\+\+\+ b/(\S+)", diff, re.M))
    return out


def copy(scratch):
    for part in PARTS:
        source, target = os.path.join(TOP, part), os.path.join(scratch, part)
        if os.path.isdir(source):
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "corpus"))
        else:
            shutil.copy(source, target)


def git_apply(patch, folder, *options):
    """The fault into the folder, which need be no repository. Exact context only: what fits by guess may be another fault."""
    done = subprocess.run(["git", "apply", *options, patch.path], cwd=folder, capture_output=True, text=True, check=False,
                          env=dict(os.environ, GIT_CEILING_DIRECTORIES=os.path.dirname(os.path.realpath(folder))))
    if done.returncode:
        raise DoesNotApply(" ".join(done.stderr.split()))


@contextlib.contextmanager
def applied(patch, scratch):
    """The scratch copy with the fault, for a while."""
    sources = {}
    for name in patch.files:
        with open(os.path.join(scratch, name), encoding="utf-8") as source:
            sources[name] = source.read()
    try:
        git_apply(patch, scratch)
        yield
    finally:
        for name, text in sources.items():
            with open(os.path.join(scratch, name), "w", encoding="utf-8") as sink:
                sink.write(text)
