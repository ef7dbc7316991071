"""docs/crash.md: each program writes its own section and leaves the others as they are."""
import datetime
import os
import platform

from load import brokers

PATH = os.path.join(brokers.ROOT, "docs", "crash.md")
TITLE = "# Crash and power cut: latest results"
INTRO = """
Written by `make crash`, `make power`, `make power-replay` and `tests/crash/mutants`; what is promised and how it is checked is in
[tests/crash/README.md](../tests/crash/README.md). *lost*: confirmed (or committed, or seen by a consumer), then missing. *back*:
acknowledged, rejected, deleted or purged with an answer that implies the journal, then there again. *other*: duplicate, order,
phantom, torn transaction, redelivered flag missing, stuck, start refused.
"""
ORDER = ("kill -9", "Power cut", "kill -9, Kafka's clients", "Power cut, Kafka's clients", "kill -9, MQTT's clients", "Power cut, MQTT's clients",
         "kill -9, continuous SQL", "Power cut, continuous SQL", "Block-level replay", "Failed syncs", "Deliberate faults")
LOSS = ("lost", "back")


def machine():
    return "%s, %d cores, Linux %s" % (platform.freedesktop_os_release()["PRETTY_NAME"], os.cpu_count(), platform.release())


def read():
    """{title: text} of the sections that are there."""
    if not os.path.exists(PATH):
        return {}
    with open(PATH, encoding="utf-8") as source:
        parts = source.read().split("\n## ")[1:]
    return {part.split("\n", 1)[0]: part.split("\n", 1)[1].strip("\n") for part in parts}


def write(title, command, seed, lines):
    sections = read()
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    head = "%s, `%s`%s, on %s." % (now, command, "" if seed is None else ", seed %d" % seed, machine())
    sections[title] = "\n".join([head, "", *lines])
    text = TITLE + "\n" + INTRO
    for name in sorted(sections, key=lambda n: ORDER.index(n) if n in ORDER else len(ORDER)):
        text += "\n## %s\n\n%s\n" % (name, sections[name])
    with open(PATH, "w", encoding="utf-8") as sink:
        sink.write(text)


HEADER = ["| part | cycles | more deaths | confirmed | acks synced | audited | redelivered, requeued | commits | compactions "
          "| lost | back | other | recovery p50 / p99 / max, ms |",
          "|---|---|---|---|---|---|---|---|---|---|---|---|---|"]


def quantiles(chain):
    times = sorted(chain.recoveries) or [0]
    return "%.0f / %.0f / %.0f" % tuple(1000 * times[n] for n in (
        len(times) // 2, min(len(times) - 1, len(times) * 99 // 100), len(times) - 1))


def row(chain):
    c, found = chain.model.counts, chain.model.found
    cells = (chain.name, chain.cycles, chain.extra, c["confirmed"], c["acks"], c["audited"],
             "%d, %d" % (c["flagged"], c["requeued"]), c["commits"], chain.compactions, found["lost"], found["back"],
             sum(n for v, n in found.items() if v not in LOSS), quantiles(chain))
    return "| " + " | ".join(map(str, cells)) + " |"
