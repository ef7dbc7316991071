"""A raw STOMP client: frames as they are, so that a test can send what no library would."""

import select
import socket
import time


class Frame:
    def __init__(self, command, headers, body):
        self.command, self.headers, self.body = command, headers, body

    def __getitem__(self, name):
        """The first value of a header, or None: the first is the one that counts."""
        return next((v for n, v in self.headers if n == name), None)

    def __repr__(self):
        return '%s %r %r' % (self.command, dict(reversed(self.headers)), self.body)


class Closed(Exception):
    pass


def encode(command, headers=(), body=b'', eol='\n'):
    head = eol.join([command, *('%s:%s' % h for h in (headers.items() if isinstance(headers, dict) else headers))])
    return (head + eol + eol).encode() + (body.encode() if isinstance(body, str) else body) + b'\0'


class Stomp:
    def __init__(self, port, host='127.0.0.1', timeout=8):
        self.socket = socket.create_connection((host, port), timeout)
        self.timeout = timeout
        self.buffer = b''
        self.beats = 0
        self.version = None

    def connect(self, version='1.2', **headers):
        """Logs in; the frame that came."""
        headers = dict({'accept-version': version, 'host': '/', 'login': 'guest', 'passcode': 'guest'},
                       **{k.replace('_', '-'): v for k, v in headers.items()})
        self.raw(encode('CONNECT', {k: v for k, v in headers.items() if v is not None}))
        frame = self.next()
        self.version = frame['version'] if frame.command == 'CONNECTED' else None
        return frame

    def raw(self, data):
        self.socket.sendall(data)

    def send(self, command, headers=(), body=b''):
        self.raw(encode(command, headers, body))

    def _more(self, deadline):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([self.socket], [], [], left)[0]:
            raise TimeoutError('no frame; %r' % self.buffer[:200])
        data = self.socket.recv(65536)
        if not data:
            raise Closed()
        self.buffer += data

    def next(self, timeout=None):
        """The next frame; Closed at the end."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            stripped = self.buffer.lstrip(b'\n')
            self.beats += len(self.buffer) - len(stripped)
            self.buffer = stripped
            end = self.buffer.find(b'\n\n')
            if end >= 0:
                command, *lines = self.buffer[:end].decode('utf-8', 'surrogateescape').split('\n')
                headers = [tuple(line.split(':', 1)) for line in lines]
                length = next((int(v) for n, v in headers if n == 'content-length'), None)
                at = end + 2
                nul = at + length if length is not None else self.buffer.find(b'\0', at)
                if nul >= at and len(self.buffer) > nul:
                    assert self.buffer[nul] == 0, self.buffer
                    body, self.buffer = self.buffer[at:nul], self.buffer[nul + 1:]
                    if self.version not in (None, '1.0'):
                        headers = [(unescape(n), unescape(v)) for n, v in headers]
                    return Frame(command, headers, body)
            self._more(deadline)

    def wait(self, command, timeout=None):
        """The next frame of that command; others are passed by."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            frame = self.next(deadline - time.monotonic())
            if frame.command == command:
                return frame
            assert frame.command != 'ERROR' or command == 'ERROR', frame

    def messages(self, count):
        return [self.wait('MESSAGE') for _ in range(count)]

    def quiet(self, seconds=0.3):
        """Nothing comes for a while: whatever does is returned."""
        try:
            return self.next(seconds)
        except TimeoutError:
            return None

    def sync(self):
        """Everything before this has been done: what came meanwhile is returned."""
        Stomp.counter = getattr(Stomp, 'counter', 0) + 1
        name = 'sync-%d' % Stomp.counter
        self.send('BEGIN', {'transaction': name})
        self.send('COMMIT', {'transaction': name, 'receipt': name})
        seen = []
        while True:
            frame = self.next()
            if frame.command == 'RECEIPT' and frame['receipt-id'] == name:
                return seen
            seen.append(frame)

    def close(self):
        self.socket.close()

    def ended(self, timeout=5):
        """The frames up to the end of the connection."""
        frames = []
        try:
            while True:
                frames.append(self.next(timeout))
        except (Closed, ConnectionResetError):
            return frames


def unescape(text):
    for code, c in (('\\n', '\n'), ('\\c', ':'), ('\\r', '\r')):
        text = text.replace('\\\\', '\0').replace(code, c).replace('\0', '\\\\')
    return text.replace('\\\\', '\\')
