"""What the clients did and were told, each with the length of the disk's log at that moment (nbdkit_record.c).

Played into a fresh model up to some length, it gives what was known there: what a client saw when the log had N entries was caused
by these N, so a disk on which they happened owes it; what a client sent then cannot be in them.
"""
import mmap
import struct
from collections import namedtuple

import model

TOLD = ("publish", "confirm", "ack", "sealed", "reject", "rejected", "requeued", "begin", "settle", "delivered", "look", "taken",
        "crash", "audit", "queue", "ready")

Ref = namedtuple("Ref", "kind key")


def packed(value):
    """Arguments without the objects of this model, which the other one has under the same keys."""
    if isinstance(value, model.Note):
        return Ref("note", value.key)
    if isinstance(value, model.Group):
        return Ref("group", value.number)
    if isinstance(value, (list, tuple)):
        return type(value)(map(packed, value))
    return value


def unpacked(value, facts):
    if isinstance(value, Ref):
        return facts.notes[value.key] if value.kind == "note" else facts.begun[value.key]
    if isinstance(value, (list, tuple)):
        return type(value)(unpacked(each, facts) for each in value)
    return value


class Facts(model.Model):
    """A model whose groups have numbers, so that a tape can name them."""

    def __init__(self, run):
        super().__init__(run)
        self.begun = []
        self.topology = False       # whether the queues of the load are declared

    def begin(self, what, members):
        group = super().begin(what, members)
        group.number = len(self.begun)
        self.begun.append(group)
        return group

    def ready(self):
        self.topology = True


def recorder(facts, told):
    """A class of models like `facts`, which writes down each call from outside; calls that the model makes of itself follow from them."""
    def recording(name):
        def call(self, *words, **named):
            if self.inside:
                return getattr(facts, name)(self, *words, **named)
            self.tape.append((self.log()[0], name, packed(words), named))
            self.inside = True
            try:
                return getattr(facts, name)(self, *words, **named)
            finally:
                self.inside = False
        return call

    def begin(self, run, count_path):
        facts.__init__(self, run)
        self.tape, self.inside = [], False
        with open(count_path, "rb") as count:
            self.count = mmap.mmap(count.fileno(), 16, prot=mmap.PROT_READ)

    def log(self):
        """(entries, flushes) of the disk's log"""
        return struct.unpack("=QQ", self.count[:16])

    return type("Recorder", (facts,), {"__init__": begin, "log": log, **{name: recording(name) for name in told}})


class Player:
    """Plays a tape forward into a model."""

    def __init__(self, facts, tape):
        self.facts, self.tape, self.at = facts, tape, 0

    def forward(self, entries):
        """All that was done or seen while the log was no longer than so many entries."""
        while self.at < len(self.tape) and self.tape[self.at][0] <= entries:
            _, name, words, named = self.tape[self.at]
            getattr(self.facts, name)(*unpacked(words, self.facts), **named)
            self.at += 1
        return self.facts
