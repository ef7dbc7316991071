"""Starting and stopping the two brokers, each in folders and on ports of its own.

Whatever is started here is stopped by its process id.  RabbitMQ (whose epmd daemonises and outlives
it) runs as process 1 of a process namespace, so that ending the one process we know ends them all.
"""

import errno
import fcntl
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
import weakref

import wire

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
RABBITMQ = '/usr/lib/rabbitmq/bin'
DIE_WITH_US = ('setpriv', '--pdeathsig', 'KILL')      # even when the test run itself is killed

# What both brokers are given before the tests: see cases/security.py and cases/policies.py.
VHOSTS = ('mr-other', 'mr-closed')
USERS = {'mr-perm': 'perm-secret', 'mr-none': 'none-secret', 'mr-some': 'some-secret'}
PERMISSIONS = (
    ('guest', 'mr-other', '.*', '.*', '.*'),
    # the name of an object says what mr-perm may do with it: ~cwr, ~c, ~wr, …
    ('mr-perm', '/', '~[a-z]*c', '~[a-z]*w', '~[a-z]*r'),
    ('mr-some', '/', '', '', ''),
)
POLICIES = [
    {'vhost': '/', 'name': 'mr-ttl', 'pattern': 'pol-ttl$', 'apply-to': 'queues', 'priority': 1,
     'definition': {'message-ttl': 50}},
    {'vhost': '/', 'name': 'mr-len', 'pattern': 'pol-len$', 'apply-to': 'queues', 'priority': 1,
     'definition': {'max-length': 2}},
    {'vhost': '/', 'name': 'mr-len-low', 'pattern': 'pol-len$', 'apply-to': 'queues', 'priority': 0,
     'definition': {'max-length': 1, 'message-ttl': 1}},
    {'vhost': '/', 'name': 'mr-ae', 'pattern': 'pol-ae$', 'apply-to': 'exchanges', 'priority': 1,
     'definition': {'alternate-exchange': 'amq.fanout'}},
    {'vhost': '/', 'name': 'mr-dlx', 'pattern': 'pol-dlx$', 'apply-to': 'all', 'priority': 1,
     'definition': {'dead-letter-exchange': '', 'dead-letter-routing-key': 'mr-pol-dead'}},
    {'vhost': '/', 'name': 'mr-exp', 'pattern': 'pol-exp$', 'apply-to': 'queues', 'priority': 1,
     'definition': {'expires': 100}},
    {'vhost': '/', 'name': 'mr-stream', 'pattern': 'pol-str$', 'apply-to': 'queues', 'priority': 1,
     'definition': {'max-age': '1h', 'max-length-bytes': 200000, 'stream-max-segment-size-bytes': 100000}},
]
# The password is "imported-secret"; this is RabbitMQ's own form of it: base64(salt, sha256(salt, password)).
IMPORTED_USER = {'name': 'mr-imported', 'password_hash': 'Se5V9QT3w9Mwd11brvQmVHfjgDDxJ3W17EEwOLCiGvgCPtM9',
                 'hashing_algorithm': 'rabbit_password_hashing_sha256', 'tags': []}
OPERATOR_POLICIES = [
    {'vhost': '/', 'component': 'operator_policy', 'name': 'mr-op-len',
     'value': {'pattern': 'op-len$', 'definition': {'max-length': 2}, 'priority': 0, 'apply-to': 'queues'}},
]
IMPORTED = {'users': [IMPORTED_USER], 'policies': POLICIES, 'parameters': OPERATOR_POLICIES,
            'topic_permissions': [{'user': 'mr-imported', 'vhost': '/', 'exchange': 'mr-topic', 'write': '^ok', 'read': '^ok'}],
            'permissions': [{'user': 'mr-imported', 'vhost': '/', 'configure': '.*', 'write': '.*', 'read': '.*'}]}


# Usual ports, to which an offset is added, those of TLS among them.
BASES = (1883, 5671, 5672, 8883, 9092, 9093, 15671, 15672, 15673, 15674, 15675, 15676, 61613, 61614)
CI_SEED = 20261126
OFFSETS = range(1, 3900)
PORTS = range(20000, 32000)     # above the highest of BASES with an offset, below those that the kernel gives to clients


class StartError(Exception):
    pass


_reserved = {}      # number: the file by which its ports are locked


def reserve(number, ports):
    """Nobody else on this machine who asks gets one of these ports until give_back(number), or until we end. False: one is taken."""
    path = os.path.join(tempfile.gettempdir(), 'millrace-test-ports-%d' % os.getuid())
    lock = open(path, 'ab')         # byte N is the lock of port N
    try:
        for port in ports:
            fcntl.fcntl(lock, fcntl.F_OFD_SETLK, struct.pack('hhqqi4x', fcntl.F_WRLCK, os.SEEK_SET, port, 1, 0))
            for family, host in ((socket.AF_INET, '127.0.0.1'), (socket.AF_INET6, '::1')):
                with socket.socket(family) as s:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    s.bind((host, port))
    except OSError as e:
        lock.close()
        if e.errno not in (errno.EADDRINUSE, errno.EAGAIN, errno.EACCES):
            raise
        return False
    _reserved[number] = lock
    return True


def give_back(number):
    lock = _reserved.pop(number, None)
    if lock:
        lock.close()


def reserve_some(numbers, ports_of, what):
    for _ in range(400):
        number = random.choice(numbers)
        if reserve(number, ports_of(number)):
            return number
    raise StartError('no free ' + what)


def free_port():
    return reserve_some(PORTS, lambda port: (port,), 'port')


def free_offset():
    return reserve_some(OFFSETS, lambda offset: [base + offset for base in BASES], 'port offset')


def seed(variable):
    """Of generated tests: what the variable says; the same in every run of CI, where nobody could play a new one again; else a new one."""
    return int(os.environ.get(variable, '0')) or (CI_SEED if os.environ.get('CI') == 'true' else random.randrange(1, 1 << 30))


def wait_until(condition, timeout, what, pause=0.002):
    """Poll a condition; its first true value, or StartError."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise StartError('%s: not within %g s' % (what, timeout))
        time.sleep(pause)
        pause = min(pause * 1.3, 0.1)


def stats(folder):
    """Path and stat of every file below a folder that a broker works in: what goes between a listing and a look is passed over."""
    for where, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(where, name)
            try:
                yield path, os.stat(path)
            except FileNotFoundError:
                pass


def answers(host, port):
    """Whether an AMQP server logs us in there."""
    try:
        w = wire.Wire(host, port, 2)
        w.open()
        w.close()
        return True
    except (OSError, wire.WireError):
        return False


class Broker:
    """What the tests use: host, port, and stop/kill9/restart."""
    name = 'broker'
    host = '127.0.0.1'

    def __init__(self, netns=None):
        self.netns = netns              # command prefix of a network namespace, or ()
        self.folder = tempfile.mkdtemp(prefix='mr-%s-' % self.name)
        self.process = None

    def wire(self, timeout=10, **kw):
        w = wire.Wire(self.host, self.port, timeout)
        w.open(**kw)
        return w

    def wait_ready(self, timeout):
        def ready():
            if self.process.poll() is not None:
                raise StartError('%s ended with %s\n%s' % (self.name, self.process.returncode, self.log_tail()))
            return self.reachable()
        wait_until(ready, timeout, self.name + ' does not answer')

    def reachable(self):
        if self.netns:
            probe = 'import sys; sys.path.insert(0, %r); import brokers; ' \
                    'sys.exit(not brokers.answers("127.0.0.1", %d))' % (HERE, self.port)
            return subprocess.run([*self.netns, '/usr/bin/python3', '-c', probe]).returncode == 0
        return answers(self.host, self.port)

    def log_tail(self):
        try:
            with open(os.path.join(self.folder, 'log')) as f:
                return f.read()[-3000:]
        except OSError:
            return ''

    def remove(self):
        if self.process and self.process.poll() is None:
            self.kill9()
        if os.environ.get('MILLRACE_KEEP') != '1':
            shutil.rmtree(self.folder, ignore_errors=True)

    def ask_to_end(self):
        self.process.send_signal(signal.SIGTERM)

    def stop(self):
        """Returns (exit code, seconds); the code is None when it had to be killed."""
        began = time.monotonic()
        self.ask_to_end()
        try:
            code = self.process.wait(self.ends_within)
        except subprocess.TimeoutExpired:
            self.kill9()
            code = None
        return code, time.monotonic() - began

    def kill9(self):
        """Where it is process 1 of a namespace, everything in that gets SIGKILL."""
        self.process.kill()
        self.process.wait()

    def restart(self):
        self.stop()
        self.start()

    def rss_bytes(self):
        with open('/proc/%d/statm' % self.process.pid) as f:
            return int(f.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')


class Running(Broker):
    """A RabbitMQ that already runs and is prepared (MILLRACE_RABBITMQ_PORT): for quick work on the tests."""
    name = 'rabbitmq'
    is_millrace = False

    def __init__(self, port):
        self.port, self.process, self.folder, self.netns = port, None, '', ()

    def remove(self):
        pass


class Millrace(Broker):
    name = 'millrace'
    is_millrace = True
    ends_within = 10

    def __init__(self, netns=(), offset=None, args=()):
        super().__init__(netns)
        self.binary = os.path.abspath(os.environ.get('MILLRACE_BIN', os.path.join(ROOT, 'build', 'millrace')))
        if not os.access(self.binary, os.X_OK):
            raise StartError('%s is not there: run make, or set MILLRACE_BIN' % self.binary)
        self.offset = free_offset() if offset is None else offset
        if offset is None:
            weakref.finalize(self, give_back, self.offset)
        self.port = 5672 + self.offset
        self.kafka_port = 9092 + self.offset
        self.mqtt_port = 1883 + self.offset
        self.http_port = 15672 + self.offset
        self.stomp_port = 61613 + self.offset
        self.data = os.path.join(self.folder, 'data')
        self.args = tuple(args)

    def start(self, timeout=20):
        command = [*DIE_WITH_US, *self.netns, self.binary, 'serve', '--data', self.data, '--port-offset', str(self.offset),
                   *self.args]
        with open(os.path.join(self.folder, 'log'), 'a') as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.wait_ready(timeout)
        return self

    def cli(self, *args):
        done = subprocess.run([self.binary, *args, '--data', self.data], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=20)
        if done.returncode:
            raise StartError('millrace %s: %s' % (' '.join(args), done.stdout))
        return done.stdout

    def status(self):
        """What `millrace status` says, as a dict."""
        return json.loads(self.cli('status', '--json'))[0]

    def prepare(self):
        for name in VHOSTS:
            self.cli('vhost', 'add', name)
        for name, password in USERS.items():
            self.cli('user', 'add', name, password)
        for user, vhost, *patterns in PERMISSIONS:
            self.cli('permission', 'set', user, *patterns, '--vhost', vhost)


class RabbitMQ(Broker):
    name = 'rabbitmq'
    is_millrace = False
    ends_within = 30

    def __init__(self, netns=(), port=None):
        super().__init__(netns)
        if not os.path.exists(RABBITMQ + '/rabbitmq-server'):
            raise StartError('rabbitmq-server is not installed')
        self.port = port or free_port()
        ports = [free_port() for _ in range(2)]
        self.stomp_port = free_port()
        for p in (self.port, self.stomp_port, *ports):
            weakref.finalize(self, give_back, p)
        f = self.folder
        with open(f + '/rabbitmq.conf', 'w') as conf:
            conf.write('listeners.tcp.1 = 127.0.0.1:%d\nstomp.listeners.tcp.1 = 127.0.0.1:%d\n' % (self.port, self.stomp_port))
        with open(f + '/enabled_plugins', 'w') as plugins:
            plugins.write('[rabbitmq_consistent_hash_exchange,rabbitmq_random_exchange,rabbitmq_stomp].\n')
        self.env = dict(
            os.environ, HOME=f, RABBITMQ_NODENAME='mr%d@localhost' % self.port, ERL_EPMD_PORT=str(ports[0]),
            ERL_EPMD_ADDRESS='127.0.0.1', RABBITMQ_DIST_PORT=str(ports[1]), RABBITMQ_MNESIA_BASE=f + '/db',
            RABBITMQ_LOG_BASE=f + '/logs', RABBITMQ_CONFIG_FILE=f + '/rabbitmq.conf', RABBITMQ_CONF_ENV_FILE='/dev/null',
            RABBITMQ_ENABLED_PLUGINS_FILE=f + '/enabled_plugins', RABBITMQ_PID_FILE=f + '/pid',
            RABBITMQ_NODE_IP_ADDRESS='127.0.0.1', RABBITMQ_NODE_PORT=str(self.port), LC_ALL='C.UTF-8')

    def start(self, timeout=90):
        root = () if os.geteuid() == 0 else ('-r',)
        command = [*DIE_WITH_US, *self.netns, 'unshare', *root, '-pf', '--kill-child', '--mount-proc', RABBITMQ + '/rabbitmq-server']
        with open(self.folder + '/log', 'a') as log:
            self.process = subprocess.Popen(command, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.wait_ready(timeout)
        return self

    def ctl(self, *args):
        done = subprocess.run([*self.netns, RABBITMQ + '/rabbitmqctl', '-q', *args], env=self.env,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
        if done.returncode:
            raise StartError('rabbitmqctl %s: %s' % (' '.join(args), done.stdout))
        return done.stdout

    def ask_to_end(self):
        self.ctl('stop')

    def prepare(self):
        definitions = dict(IMPORTED, vhosts=[{'name': v} for v in VHOSTS])
        definitions['users'] = [IMPORTED_USER] + [{'name': n, 'password': p, 'tags': ''} for n, p in USERS.items()]
        definitions['permissions'] = IMPORTED['permissions'] + [
            dict(zip(('user', 'vhost', 'configure', 'write', 'read'), p)) for p in PERMISSIONS]
        path = self.folder + '/definitions.json'
        with open(path, 'w') as f:
            json.dump(definitions, f)
        self.ctl('import_definitions', path)


def write_import(folder):
    """The definitions Millrace reads at its start (--definitions)."""
    path = os.path.join(folder, 'definitions.json')
    with open(path, 'w') as f:
        json.dump(IMPORTED, f)
    return path


def netns():
    """A command prefix that runs in a fresh network namespace with lo up, or StartError.  Returns
    (prefix, stop)."""
    holder = subprocess.Popen(['unshare', '-n', 'sh', '-c', 'ip link set lo up && echo ready && exec cat'],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if holder.stdout.readline().strip() != b'ready':
        holder.kill()
        holder.wait()
        raise StartError('no network namespace: ' + holder.stderr.read().decode())

    def stop():
        holder.stdin.close()
        holder.wait(10)
    return ('nsenter', '--net=/proc/%d/ns/net' % holder.pid), stop
