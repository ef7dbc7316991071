"""`millrace sql` on a terminal of the tests' own, and something that answers like POST /sql but says what a test wants."""

import http.server
import json
import os
import pty
import queue
import re
import select
import subprocess
import threading
import time

import brokers

ESCAPES = re.compile(r'\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>()][A-B0-2]?|\r|\x07')


class Said:
    """What a statement is answered with: lines, then the end; or, with a queue, whatever is put there until None."""

    def __init__(self, *lines, status=200, live=None):
        self.lines, self.status, self.live = lines, status, live

    @classmethod
    def table(cls, columns, *rows):
        return cls({'statement': 0, 'columns': [{'name': n, 'type': t} for n, t in columns]}, *[{'row': r} for r in rows],
                   {'done': 'SELECT', 'rows': len(rows)})


class Answering(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def do_POST(self):
        fake = self.server.fake
        text = self.rfile.read(int(self.headers['Content-Length'])).decode()
        fake.asked.append(text)
        fake.heads.append((self.path, dict(self.headers)))
        said = fake.answers.get(text.rstrip(';'), Said())
        self.send_response(said.status)
        self.send_header('Content-Type', 'application/x-ndjson')
        self.send_header('Transfer-Encoding', 'chunked')
        self.end_headers()
        try:
            for line in said.lines:
                self.say(line)
            while said.live is not None:
                try:
                    line = said.live.get(timeout=0.02)
                except queue.Empty:
                    if select.select([self.connection], [], [], 0)[0]:      # the client has gone
                        fake.gone.set()
                        self.close_connection = True
                        return
                    continue
                if line is None:
                    break
                self.say(line)
            self.wfile.write(b'0\r\n\r\n')
        except OSError:
            fake.gone.set()

    def say(self, line):
        data = (line if isinstance(line, str) else json.dumps(line, ensure_ascii=False, separators=(',', ':'))).encode() + b'\n'
        for part in (data[:7], data[7:]):                   # in pieces that are no lines
            if part:
                self.wfile.write(b'%x\r\n%s\r\n' % (len(part), part))
        self.wfile.flush()

    def log_message(self, *args):
        pass


class FakeSql:
    """asked: the statements, in order; heads: path and fields of each; gone: a client has left before the end of an answer."""

    def __init__(self):
        self.answers, self.asked, self.heads, self.gone = {}, [], [], threading.Event()
        self.server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Answering)
        self.server.daemon_threads = True
        self.server.fake = self
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def binary():
    return os.path.abspath(os.environ.get('MILLRACE_BIN', os.path.join(brokers.ROOT, 'build', 'millrace')))


def environment(**more):
    """With an address sanitizer: libedit never gives back the two names of a function that was added to it (wcsdup)."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith('MILLRACE_')}
    return {**kept, 'MILLRACE_HISTORY': '', 'LC_ALL': 'C.UTF-8', 'LSAN_OPTIONS': 'print_suppressions=0:suppressions=' + os.path.join(brokers.HERE, 'sanitizer.supp'), **more}


class Terminal:
    """A program on a terminal.  `see` waits for text among what it has written since the last time."""

    def __init__(self, *command, columns=80, env=None):
        master, slave = pty.openpty()
        import fcntl
        import struct
        import termios
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack('HHHH', 24, columns, 0, 0))
        self.process = subprocess.Popen([*brokers.DIE_WITH_US, *command], stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0), env=env or environment(TERM='xterm'))
        os.close(slave)
        self.fd, self.raw, self.seen = master, '', ''

    def more(self, timeout):
        if not select.select([self.fd], [], [], timeout)[0]:
            return False
        try:
            data = os.read(self.fd, 65536)
        except OSError:
            return False
        self.raw += data.decode('utf-8', 'replace')
        return bool(data)

    def see(self, text, timeout=20):
        """What stood before it, and itself, without what moves cursors and paints."""
        deadline = time.monotonic() + timeout
        while True:
            plain = ESCAPES.sub('', self.raw)
            at = plain.find(text)
            if at >= 0:
                self.seen, self.raw = plain[:at + len(text)], plain[at + len(text):]
                return self.seen
            if time.monotonic() > deadline or (not self.more(0.2) and self.process.poll() is not None):
                raise AssertionError('%r did not come, but %r' % (text, plain))

    def type(self, text):
        os.write(self.fd, text.encode())

    def end(self):
        """Its exit code."""
        deadline = time.monotonic() + 20
        while self.process.poll() is None and time.monotonic() < deadline:
            self.more(0.05)
        while self.more(0):
            pass
        return self.process.poll()

    def leave(self):
        """Ctrl-D; its exit code."""
        self.type('\x04')
        return self.end()

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.fd)
