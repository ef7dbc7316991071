"""A WebSocket client on a blocking socket, whose frames are made and checked by python3-websockets (strictly: it refuses
masked frames, bytes that are not UTF-8 in text, and whatever else RFC 6455 forbids a server).

WebSocket is also enough of a socket for wire.Wire: Web is an AMQP client within a WebSocket.
"""

import socket
import struct

import wire
from websockets.client import ClientConnection
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Opcode
from websockets.uri import parse_uri


class Refused(Exception):
    """The handshake was answered with another status than 101."""

    def __init__(self, response):
        super().__init__('%d %s' % (response.status_code, response.body))
        self.status, self.headers, self.body = response.status_code, response.headers, response.body


class WebSocket:
    def __init__(self, port, path='/ws', subprotocols=None, origin=None, timeout=10, host='127.0.0.1', fragment=0, tls=None, packs=None):
        self.sock = socket.create_connection((host, port), timeout=timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:                             # an SSLContext
            self.sock = tls.wrap_socket(self.sock, server_hostname='localhost')
        self.fragment = fragment            # bytes of each frame of a message; 0: one frame
        self.events = []                    # frames that came and nobody took
        self.came = 0                       # bytes, as they come
        offers = [ClientPerMessageDeflateFactory(**packs)] if packs is not None else None
        self.conn = ClientConnection(parse_uri('ws://%s:%d%s' % (host, port, path)), origin=origin, subprotocols=subprotocols,
                                     extensions=offers, max_size=None)
        self.conn.send_request(self.conn.connect())
        self.flush()
        while not self.events:
            self.receive()
        response = self.events.pop(0)
        if self.conn.handshake_exc is not None:
            self.sock.close()
            raise Refused(response) if response.status_code != 101 else self.conn.handshake_exc
        self.protocol = self.conn.subprotocol
        self.packed = [str(e) for e in self.conn.extensions]

    # -- frames

    def flush(self):
        for data in self.conn.data_to_send():
            if data:
                self.sock.sendall(data)

    def receive(self):
        """One recv; False: the server has closed."""
        data = self.sock.recv(262144)
        self.came += len(data)
        if data:
            self.conn.receive_data(data)
        else:
            self.conn.receive_eof()
        self.events += self.conn.events_received()
        self.flush()                        # pongs, the answer to a close frame
        return bool(data)

    def frame(self):
        """The next frame, None at the end."""
        while not self.events:
            if not self.receive():
                return None
        return self.events.pop(0)

    def closed_with(self):
        """Waits for the end; the code of the server's close frame, None without one."""
        while self.receive():
            pass
        return self.conn.close_rcvd.code if self.conn.close_rcvd else None

    def send(self, data, text=False):
        steps = range(0, len(data), self.fragment) if self.fragment else (0,)
        for at in steps:
            part = data[at:at + self.fragment] if self.fragment else data
            fin = not self.fragment or at + self.fragment >= len(data)
            if at:
                self.conn.send_continuation(part, fin)
            elif text:
                self.conn.send_text(part, fin)
            else:
                self.conn.send_binary(part, fin)
        self.flush()

    # -- as a socket

    def sendall(self, data):
        self.send(bytes(data))

    def recv(self, _size):
        while True:
            data = b''.join(f.data for f in self.events if f.opcode in (Opcode.BINARY, Opcode.TEXT, Opcode.CONT))
            self.events = [f for f in self.events if f.opcode not in (Opcode.BINARY, Opcode.TEXT, Opcode.CONT)]
            if data:
                return data
            if not self.receive():
                return b''

    def fileno(self):
        return self.sock.fileno()

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.close()

    def settimeout(self, seconds):
        self.sock.settimeout(seconds)


def raw_frame(first, payload=b'', mask=b'\x37\xfa\x21\x3d', length=None):
    """A frame as no library would send it: first is FIN, RSV and opcode; mask None: not masked."""
    n = len(payload) if length is None else length
    masked = 0x80 if mask else 0
    if n < 126:
        head = struct.pack('>BB', first, masked | n)
    elif n < 65536:
        head = struct.pack('>BBH', first, masked | 126, n)
    else:
        head = struct.pack('>BBQ', first, masked | 127, n)
    if mask is None:
        return head + payload
    return head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload))


class Web(wire.Wire):
    """wire.Wire within a WebSocket."""

    def __init__(self, port, timeout=10.0, **kw):
        self.make = lambda host, port, timeout: WebSocket(port, timeout=timeout, **kw)
        super().__init__('127.0.0.1', port, timeout)

    def connect(self, host, port, timeout):
        return self.make(host, port, timeout)
