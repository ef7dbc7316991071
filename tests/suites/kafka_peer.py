#!/usr/bin/python3
"""A real Apache Kafka of one node, as a peer to develop and record against.  ./test never needs it.

    tests/suites/kafka_peer.py --port 9092 [--folder DIR] [COMMAND ...]

Fetches the jars with Maven into build/suites/kafka-VERSION (once; the repository is whatever the user's Maven is set up
with), formats a temporary folder, starts the broker and a KRaft controller in one process and waits until it answers.  With
a COMMAND, runs it with KAFKA_PORT set and ends the broker with it; without, runs until it is interrupted.  The same as a
class for the tests: `Kafka(port).start()`, `.stop()`, `.kill9()`, `.remove()`.

Needs Java 17 or later and Maven (tools/packages: `suites`).  Ends only the process that it started.
"""
import argparse
import hashlib
import os
import signal
import socket
import struct
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests", "clients"))

import brokers  # noqa: E402

VERSION, LOGGER = "4.3.1", "2.25.4"
# sha256 over "NAME SHA256\n" of every jar below, in the order of their names: what was run when the answers were recorded.
JARS = "91e99fe3638473b79edb85486d60766c1fa601393f2dfcd04249610ae13ee4f1"
WORK = os.path.join(ROOT, "build", "suites")
LIB = os.path.join(WORK, "kafka-" + VERSION)
PACKAGES = (("org.apache.kafka", "kafka_2.13", VERSION), ("org.apache.logging.log4j", "log4j-slf4j-impl", LOGGER))
POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
 <modelVersion>4.0.0</modelVersion><groupId>millrace</groupId><artifactId>kafka-peer</artifactId><version>1</version>
 <packaging>pom</packaging>
 <dependencies>
%s </dependencies>
</project>
"""
DEPENDENCY = "  <dependency><groupId>%s</groupId><artifactId>%s</artifactId><version>%s</version></dependency>\n"
# Starting is most of what a test waits for: the quick compiler and the simplest collector.
JAVA = ("java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
PROPERTIES = """process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{advertised},CONTROLLER://127.0.0.1:{controller}
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={folder}/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=3
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=3
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=100
"""
# A listener that wants a login, for `guest` with the password `guest`; its keys of SCRAM are made by whoever wants them.
SASL = """listeners=PLAINTEXT://127.0.0.1:{port},SASL_PLAINTEXT://127.0.0.1:{sasl},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{advertised},SASL_PLAINTEXT://127.0.0.1:{sasl},CONTROLLER://127.0.0.1:{controller}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.sasl_plaintext.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_guest="guest";
listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_plaintext.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
"""
LOG4J = """<Configuration><Appenders><Console name="out"><PatternLayout pattern="%d %p %c %m%n"/></Console></Appenders>
<Loggers><Root level="warn"><AppenderRef ref="out"/></Root></Loggers></Configuration>
"""


def digest(lib):
    """One sha256 for all that Maven brought."""
    whole = hashlib.sha256()
    for name in sorted(os.listdir(lib)):
        if name.endswith(".jar"):
            with open(os.path.join(lib, name), "rb") as jar:
                whole.update(("%s %s\n" % (name, hashlib.sha256(jar.read()).hexdigest())).encode())
    return whole.hexdigest()


def fetch(lib=LIB, packages=PACKAGES, jars=JARS):
    """The jars of these packages and of all they need, once; they are checked every time."""
    os.makedirs(lib, exist_ok=True)
    if not os.path.exists(lib + "/ready"):
        with open(lib + "/pom.xml", "w", encoding="utf-8") as pom:
            pom.write(POM % "".join(DEPENDENCY % one for one in packages))
        try:
            done = subprocess.run(["mvn", "-q", "-B", "-f", lib + "/pom.xml", "dependency:copy-dependencies", "-DoutputDirectory=" + lib],
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        except OSError as why:
            raise brokers.StartError("Maven is needed for a real Kafka (Debian: maven): %s" % why) from why
        if done.returncode:
            raise brokers.StartError("Maven could not fetch Kafka %s:\n%s" % (VERSION, done.stdout[-2000:]))
        open(lib + "/ready", "w").close()
    if digest(lib) != jars:
        raise brokers.StartError("the jars in %s are not those that this file names: %s" % (lib, digest(lib)))


def answers(port):
    """Whether a Kafka broker speaks there and knows a broker: Metadata v1 of no topics."""
    try:
        with socket.create_connection(("127.0.0.1", port), 2) as s:
            s.sendall(struct.pack(">ihhihi", 14, 3, 1, 7, -1, 0))
            head = s.recv(12, socket.MSG_WAITALL)
            return len(head) == 12 and struct.unpack(">iii", head)[2] > 0
    except OSError:
        return False


class Kafka(brokers.Broker):
    name = "kafka"
    is_millrace = False
    ends_within = 60

    def __init__(self, port=0, settings="", advertised=None, sasl=False):
        super().__init__(())
        fetch()
        self.port = self.kafka_port = port or brokers.free_port()
        self.sasl_port = brokers.free_port() if sasl else None
        with open(self.folder + "/one.properties", "w", encoding="utf-8") as out:
            out.write((PROPERTIES + (SASL if sasl else "")).format(
                port=self.port, controller=brokers.free_port(), folder=self.folder, advertised=advertised or self.port, sasl=self.sasl_port) + settings)
        with open(self.folder + "/log4j2.xml", "w", encoding="utf-8") as out:
            out.write(LOG4J)
        self.java("kafka.tools.StorageTool", "format", "-t", "millraceAAAAAAAAAAAAAA", "-c", self.folder + "/one.properties",
                  "--standalone")

    def words(self, *args):
        return [*JAVA, "-Dlog4j2.configurationFile=" + self.folder + "/log4j2.xml", "-cp", LIB + "/*", *args]

    def java(self, *args):
        done = subprocess.run(self.words(*args), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=120, check=False)
        if done.returncode:
            raise brokers.StartError("%s: %s" % (" ".join(args), done.stdout[-2000:]))

    def start(self, timeout=90):
        with open(self.folder + "/log", "a", encoding="utf-8") as log:
            self.process = subprocess.Popen([*brokers.DIE_WITH_US, *self.words("kafka.Kafka", self.folder + "/one.properties")],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.wait_ready(timeout)
        return self

    def reachable(self):
        return answers(self.port)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--port", type=int, default=9092)
    parser.add_argument("command", nargs=argparse.REMAINDER, help="run this with KAFKA_PORT set, then end the broker")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    kafka = None
    try:
        kafka = Kafka(options.port).start()
        print("Kafka %s answers on 127.0.0.1:%d, process %d" % (VERSION, options.port, kafka.process.pid), flush=True)
        if options.command:
            return subprocess.run(options.command, env=dict(os.environ, KAFKA_PORT=str(options.port)), check=False).returncode
        kafka.process.wait()
    except KeyboardInterrupt:
        pass
    except brokers.StartError as why:
        print(why, file=sys.stderr)
        return 1
    finally:
        if kafka:
            kafka.remove()
    return 0


if __name__ == "__main__":
    sys.exit(main())
