"""Rows of bytes against Debian's Mosquitto: what comes back is the same, but for what a row says (mqtt_rows.py)."""

import shutil
import subprocess

import pytest

import brokers
import mqtt_rows


@pytest.fixture(scope='module')
def peer(tmp_path_factory):
    """The port of a Mosquitto of our own."""
    binary = shutil.which('mosquitto') or shutil.which('mosquitto', path='/usr/sbin')
    if not binary:
        pytest.skip('mosquitto is not installed')
    folder = tmp_path_factory.mktemp('mosquitto')
    port = brokers.free_port()
    conf = folder / 'mosquitto.conf'
    conf.write_text('listener %d 127.0.0.1\nallow_anonymous true\npersistence false\nmax_topic_alias 16\nlog_type error\nuser root\n' % port)
    with subprocess.Popen([*brokers.DIE_WITH_US, binary, '-c', str(conf)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            brokers.wait_until(lambda: listens(port), 10, 'mosquitto')
            yield port
        finally:
            process.terminate()


def listens(port):
    try:
        mqtt_rows.Connection(port).close()
        return True
    except OSError:
        return False


@pytest.fixture(scope='module')
def ours():
    broker = brokers.Millrace()
    try:
        broker.start()
        yield broker.mqtt_port
    finally:
        broker.remove()


@pytest.mark.parametrize('row', mqtt_rows.rows(), ids=lambda r: r.name)
def test_row(row, peer, ours):
    want = mqtt_rows.play(peer, row)
    got = mqtt_rows.play(ours, row, len(want) - 1)
    assert mqtt_rows.same(row, want, got), (want, got, row.differs)
    if row.differs and row.differs[0]:
        assert want != got, 'Mosquitto says the same: the row need not say that it differs'
