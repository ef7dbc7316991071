#!/usr/bin/python3
"""Apache Kafka's own Java clients, the newest, against Millrace: tests/suites/java/Clients.java.  ./test never needs it.

    tests/suites/java_clients.py [--broker millrace|kafka] [--java COMMAND ...] [--only TEXT] [--report]

Fetches kafka-clients, kafka-streams and rocksdbjni with Maven into build/suites/java-VERSION (once; the repository is whatever
the user's Maven is set up with), starts a broker in a temporary folder and runs the program once for each Java, one after
the other, each with a broker of its own.  `--broker kafka` plays the same to a real Kafka (kafka_peer.py), which has to pass
everything: what is expected is what it does.  Where the program asks for it the broker is killed with SIGKILL and started again.
A check that MISSING names may fail on Millrace, and has to.  `--report`
writes the section Java of docs/compatibility.md.  The last line is `N passed, N failed`.

Needs Java 17 or later and Maven (tools/packages: `suites`).  Ends only processes that it started.
"""
import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(ROOT, "tests", "clients")]

import brokers  # noqa: E402
import kafka_peer  # noqa: E402

PROGRAM = os.path.join(HERE, "java", "Clients.java")
DOCUMENT = os.path.join(ROOT, "docs", "compatibility.md")
BEGIN, END = "<!-- java: written by make java -->\n", "<!-- java: end -->\n"
LIB = os.path.join(kafka_peer.WORK, "java-" + kafka_peer.VERSION)
PACKAGES = (("org.apache.kafka", "kafka-streams", kafka_peer.VERSION), ("org.apache.logging.log4j", "log4j-slf4j-impl", kafka_peer.LOGGER))
# As in kafka_peer: what the checks were written against.
JARS = "b6d770db8e3ed58a9ecc01b73828c326f963d1b45c5847a029ca2e78ecb0d038"
SECONDS = 900                       # a run takes about two minutes
# What Millrace does not do yet, with the reason; docs/PLAN.md has them.
MISSING = {}


def play(broker, java, only):
    """The lines that the program printed, shown as they come; ends with its budget."""
    work = broker.folder + "/java"
    os.makedirs(work)
    with open(work + "/log4j2.xml", "w", encoding="utf-8") as out:
        out.write(kafka_peer.LOG4J.replace('<Console name="out">', '<File name="out" fileName="%s/log">' % work)
                  .replace("</Console>", "</File>"))
    words = [*brokers.DIE_WITH_US, java, "-Xmx512m", "-XX:+UseSerialGC", "-Dlog4j2.configurationFile=" + work + "/log4j2.xml",
             "-cp", LIB + "/*", PROGRAM, "%s:%d" % (broker.host, broker.kafka_port), work + "/streams", *([only] if only else [])]
    lines = []
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as program:
        budget = threading.Timer(SECONDS, program.kill)
        budget.start()
        for line in program.stdout:
            if line == "! kill -9\n":
                broker.kill9()
                broker.start()
                program.stdin.write("started\n")
                program.stdin.flush()
                continue
            lines.append(line.rstrip("\n"))
            print(lines[-1], flush=True)
        budget.cancel()
    kept = os.path.join(kafka_peer.WORK, "java-%s.log" % broker.name)
    if os.path.exists(work + "/log"):
        shutil.copy(work + "/log", kept)
    if not re.match(r"\d+ passed, \d+ failed$", lines[-1] if lines else ""):
        lines.append("FAIL the program did not come to its end: exit code %s" % program.returncode)
        print(lines[-1], flush=True)
    return lines


def judge(lines, missing):
    """(passed, failed, known): a missing thing that works is as wrong as one that fails without being named."""
    good = [line[3:] for line in lines if line.startswith("ok ")]
    bad = [line[5:].split(": ")[0] for line in lines if line.startswith("FAIL ")]
    known = [name for name in bad if name in missing]
    stale = [name for name in good if name in missing]
    for name in stale:
        print("FAIL %s: passes, so it must leave MISSING" % name)
    return len(good) - len(stale), len(bad) - len(known) + len(stale), known


def report(runs):
    """The section, between its two marks; Javas with the same outcome share their lines."""
    out = [BEGIN]
    out.append("`make java` runs `tests/suites/java/Clients.java` with kafka-clients and kafka-streams %s. Apache Kafka %s passes all of it\n"
               "(`tests/suites/java_clients.py --broker kafka`).\n\n" % (kafka_peer.VERSION, kafka_peer.VERSION))
    blocks = {}
    for lines in runs:
        printed = [re.sub(r" \(line .*", "", line) for line in lines if re.match(r"# |ok |FAIL |\d+ passed", line)]
        blocks.setdefault("\n".join(printed[1:]), []).append(printed[0])
    for rest, heads in blocks.items():
        out.append("```\n%s\n%s\n```\n\n" % ("\n".join(heads), rest))
    if MISSING:
        out.append("Expected to fail:\n\n" + "".join("- %s: %s\n" % one for one in MISSING.items()))
    out.append(END)
    with open(DOCUMENT, encoding="utf-8") as document:
        text = document.read()
    before, rest = text.split(BEGIN)
    with open(DOCUMENT, "w", encoding="utf-8") as document:
        document.write(before + "".join(out) + rest.split(END)[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--broker", choices=("millrace", "kafka"), default="millrace")
    parser.add_argument("--java", nargs="+", default=["java"], help="one or several to run it with")
    parser.add_argument("--only", default="", help="keeps the checks whose name has this")
    parser.add_argument("--report", action="store_true", help="write docs/compatibility.md")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    passed = failed = 0
    runs, broker = [], None
    try:
        kafka_peer.fetch(LIB, PACKAGES, JARS)
        for java in options.java:
            broker = (kafka_peer.Kafka() if options.broker == "kafka" else brokers.Millrace()).start()
            lines = play(broker, java, options.only)
            good, bad, known = judge(lines, MISSING if broker.is_millrace else {})
            for name in known:
                print("%s: may fail, %s" % (name, MISSING[name]))
            if broker.process.poll() is not None:
                print("FAIL the broker ended with %s\n%s" % (broker.process.returncode, broker.log_tail()))
                bad += 1
            broker.remove()
            passed, failed = passed + good, failed + bad
            runs.append(lines)
    except brokers.StartError as why:
        print(why, file=sys.stderr)
        return 1
    finally:
        if broker:
            broker.remove()
    if options.report and not options.only and options.broker == "millrace":
        report(runs)
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
