"""What the programs for Python have in common: steps are run in order, each says what it saw as a line of JSON."""
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
import traceback

SECONDS = 100


def say(*event):
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError("not within its time")
        time.sleep(0.02)


def run(steps, word):
    """steps: [(name, function)]; word: what an error is called in the report."""
    for name, step in steps:
        if os.environ.get("MILLRACE_STEP", "") not in name:
            continue
        out = []

        def work(step=step, out=out, name=name):
            try:
                out.append(("seen", name, step()))
            except Exception as why:  # pylint: disable=broad-except
                out.append(("failed", name, word(why)))
                sys.stderr.write("%s: %s\n" % (name, traceback.format_exc()))
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(SECONDS)
        say(*(out[0] if out else ("failed", name, "not within its time")))
    say("end")
    os._exit(0)                        # a step that never came back may still hold a client


class Member:
    """The same program again as a member of a group, in a process that can be killed."""

    def __init__(self, *args):
        self.events = []
        self.process = subprocess.Popen([sys.executable, os.path.abspath(sys.argv[0]), sys.argv[1], "member", *args], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, text=True)
        threading.Thread(target=lambda: self.events.extend(json.loads(line) for line in self.process.stdout), daemon=True).start()

    def assigned(self):
        return next((e[1] for e in reversed(list(self.events)) if e[0] == "assigned"), [])

    def records(self):
        return [e[1] for e in list(self.events) if e[0] == "record"]

    def kill(self):
        self.process.kill()
        self.process.wait()


def shared(start, send):
    """Two members share four partitions; one is killed, and the other gets them all.  start() starts a member, send(range)
    writes numbers into partition NUMBER % 4."""
    a, b = start(), start()
    until(lambda: (len(a.assigned()), len(b.assigned())) == (2, 2))
    send(range(40))
    until(lambda: len(a.records()) + len(b.records()) >= 40)
    b.kill()
    until(lambda: len(a.assigned()) == 4, 60)
    send(range(40, 60))
    until(lambda: {str(i) for i in range(40, 60)} <= set(a.records()))
    a.kill()
    return [len(set(a.records() + b.records())), sorted(a.assigned())]


def digest(data):
    return None if data is None else hashlib.sha256(data).hexdigest()[:12]


def value(i):
    return None if i % 7 == 0 else b"value %d %s" % (i, b"x" * (10 * i))


def key(i):
    return None if i % 5 == 0 else b"k%d" % i


T0 = 1700000000000
