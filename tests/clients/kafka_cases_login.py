"""Rows of kafka_rows.py: logins by SASL, on a listener of their own that lets nobody in without one (conn `sasl`).

`guest` with the password `guest` is known to both brokers; a row of SCRAM gives it keys first, all rows the same ones.
"""

import base64
import hashlib
import hmac
import struct
import time

from kafka_cases_admin import credential
from kafka_rows import Step, ask, closes, raw, row, send

S = 'sasl'
SALT = b'guest has a salt'
HASHES = {'SCRAM-SHA-256': (1, 'sha256'), 'SCRAM-SHA-512': (2, 'sha512')}


def handshake(mechanism, version=1, conn=S):
    return ask('sasl_handshake', version, conn, mechanism=mechanism)


def token(data, version=2, conn=S):
    return ask('sasl_authenticate', version, conn, auth_bytes=data)


def plain(user='guest', secret='guest', identity=''):
    return ('%s\0%s\0%s' % (identity, user, secret)).encode()


def keys():
    """guest has the keys that belong to its password, and logins know it."""
    def play(p):
        p.wire('keys').call('sasl_handshake', 1, mechanism='PLAIN')
        p.wire('keys').call('sasl_authenticate', 2, auth_bytes=plain())
        for mechanism, (number, _) in HASHES.items():
            upsertion = p.fill(credential('guest', number, salt=SALT, secret='guest'))
            p.wire('keys').call('alter_user_scram_credentials', 0, upsertions=[upsertion])
            deadline = time.monotonic() + 15
            while exchange(p, mechanism, 'guest', 'guest', 'try').get('proven') is not True:
                p.connections.pop('try').close()
                if time.monotonic() > deadline:
                    return 'never: %s' % mechanism
            p.connections.pop('try').close()
        return 'in time'
    return Step('guest has keys', play)


def exchange(p, mechanism, user, secret, conn=S, tamper=None, version=2):
    """What became of each step, without what is random."""
    name = HASHES[mechanism][1]
    w = p.wire(conn)
    w.call('sasl_handshake', 1, mechanism=mechanism)
    first = 'n=%s,r=clientnonce' % user
    answer = w.call('sasl_authenticate', version, auth_bytes=('n,,' + first).encode())
    if answer['error_code']:
        return {'first': answer['error_code']}
    said = answer['auth_bytes'].decode()
    parts = dict(part.split('=', 1) for part in said.split(','))
    salt, iterations = base64.b64decode(parts['s']), int(parts['i'])
    salted = hashlib.pbkdf2_hmac(name, secret.encode(), salt, iterations)
    bare = 'c=biws,r=' + parts['r']
    over = ','.join([first, said, bare]).encode()

    def of(key, data):
        return hmac.new(key, data, name).digest()
    client_key = of(salted, b'Client Key')
    proof = bytes(a ^ b for a, b in zip(client_key, of(hashlib.new(name, client_key).digest(), over)))
    last = ('%s,p=%s' % (bare, base64.b64encode(proof).decode()))
    answer = w.call('sasl_authenticate', version, auth_bytes=(tamper(last) if tamper else last).encode())
    out = {'first': 0, 'nonce begins with the client\'s': parts['r'].startswith('clientnonce'), 'last': answer['error_code'],
           'session_lifetime_ms': answer.get('session_lifetime_ms'), 'iterations': iterations}
    if not answer['error_code']:
        wanted = base64.b64encode(of(of(salted, b'Server Key'), over)).decode()
        out['proven'] = answer['auth_bytes'].decode() == 'v=' + wanted
    return out


def scram(mechanism, user='guest', secret='guest', **more):
    return Step('%s as %s' % (mechanism, user), lambda p: exchange(p, mechanism, user, secret, **more))


def unwrapped(data):
    """A token without a request around it, and the answer's length."""
    def play(p):
        w = p.wire(S)
        w.raw(struct.pack('>i', len(data)) + data)
        return len(w.frame())
    return Step('a bare token', play)


IN = ask('metadata', 9, S, topics=[]).ignore('brokers', 'controller_id', 'cluster_id', why='the listener is not the one that other rows know')
ROWS = [
    *[row('sasl: PLAIN, authenticate v%d' % v, handshake('PLAIN'), token(plain(), v), IN) for v in range(3)],
    row('sasl: PLAIN with the identity said as well', handshake('PLAIN'), token(plain(identity='guest')), IN),
    row('sasl: PLAIN with another identity', handshake('PLAIN'), token(plain(identity='other')), closes(S)),
    row('sasl: PLAIN, a wrong password', handshake('PLAIN'), token(plain(secret='wrong')), closes(S)),
    row('sasl: PLAIN, nobody', handshake('PLAIN'), token(plain('{u}nobody')), closes(S)),
    row('sasl: PLAIN without a name', handshake('PLAIN'), token(plain('')), closes(S)),
    row('sasl: PLAIN without a password', handshake('PLAIN'), token(plain(secret='')), closes(S)),
    row('sasl: PLAIN, a token of nothing', handshake('PLAIN'), token(b''), closes(S)),
    row('sasl: PLAIN, a token of two parts', handshake('PLAIN'), token(b'guest\0guest'), closes(S)),
    row('sasl: PLAIN, a token of four parts', handshake('PLAIN'), token(b'\0guest\0guest\0'), closes(S)),
    row('sasl: PLAIN without a request around the token', handshake('PLAIN', 0), unwrapped(plain()), IN),
    row('sasl: PLAIN without a request around it, a wrong password', handshake('PLAIN', 0), raw(
        lambda p: struct.pack('>i', 13) + plain(secret='wrong!'), S), closes(S)),
    *[row('sasl: a mechanism that nobody knows, handshake v%d' % v, handshake('NTLM', v), closes(S)) for v in range(2)],
    row('sasl: authenticate without a handshake', send('sasl_authenticate', 2, S, auth_bytes=plain()), closes(S)),
    row('sasl: a request before the login', send('metadata', 9, S, topics=[]), closes(S)),
    row('sasl: versions before and within the login', ask('api_versions', 3, S, client_software_name='ktest', client_software_version='1')
        .ignore('api_keys', 'supported_features', 'finalized_features', 'finalized_features_epoch', why='Kafka\'s own list'), handshake('PLAIN'), token(plain()), IN),
    row('sasl: a second handshake', handshake('PLAIN'), handshake('PLAIN'), closes(S)),
    *[row('sasl: %s' % m, keys(), scram(m), IN) for m in HASHES],
    *[row('sasl: %s, authenticate v%d' % (m, v), keys(), scram(m, version=v)) for m in HASHES for v in range(2)],
    *[row('sasl: %s, a wrong password' % m, keys(), scram(m, secret='wrong'), closes(S)) for m in HASHES],
    row('sasl: SCRAM, a wrong channel binding', keys(), scram('SCRAM-SHA-256', tamper=lambda last: 'c=eSws' + last[6:]), closes(S)),
    row('sasl: SCRAM, another nonce', keys(), scram('SCRAM-SHA-256', tamper=lambda last: last.replace('r=client', 'r=klient')), closes(S)),
    row('sasl: SCRAM, nonsense', handshake('SCRAM-SHA-256'), token(b'nonsense'), closes(S)),
    row('sasl: SCRAM with channel binding', handshake('SCRAM-SHA-256'), token(b'p=tls-unique,,n=guest,r=x'), closes(S)),
]
