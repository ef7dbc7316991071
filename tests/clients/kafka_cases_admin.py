"""Rows of kafka_rows.py: what an administrator asks of producers, transactions and credentials."""

import hashlib

from kafka_cases_txn import T, add, end, init, read, stable, who, write
from kafka_rows import Step, ask, producing, row, topic, until
from kafka_wire import batch

NO_TAKEOVER = 'there is one coordinator, nobody takes over from it'
WHEN = 'the time at which it was recorded'


def describe(name=T, *partitions):
    return ask('describe_producers', 0, topics=[{'name': name, 'partition_indexes': list(partitions or (0,))}]).ignore(
        'last_timestamp', why=WHEN).ignore('coordinator_epoch', why=NO_TAKEOVER)


def mark(committed=False, partitions=(0,), name=T, epoch=None):
    w = who()
    return ask('write_txn_markers', 1, markers=[{
        'producer_id': w['producer_id'], 'producer_epoch': w['producer_epoch'] if epoch is None else epoch, 'transaction_result': committed,
        'coordinator_epoch': 0, 'topics': [{'name': name, 'partition_indexes': list(partitions)}]}])


def numbered(sequence, count):
    """A batch of an idempotent producer whose id was asked for as `number`."""
    return ask('produce', 9, **producing(lambda p: batch(['v'] * count, pid=p.asked['number']['producer_id'], epoch=0, sequence=sequence)))


PRODUCERS = [
    row('describe_producers: none', topic(), describe()),
    row('describe_producers: an idempotent one', topic(), until(
        lambda a: a['error_code'] == 0, 'init_producer_id', 4, name='number', transactional_id=None, transaction_timeout_ms=60000),
        numbered(0, 3), describe(), numbered(3, 2), describe()),
    row('describe_producers: a transaction, open and ended', topic(), init(), add(), write(0), write(1, 'y', 'z'), describe(), end(), stable(4), describe()),
    row('describe_producers: what is not there', topic(partitions=2), describe(T, 1, 2), describe('{u}none')),
    row('write_txn_markers: abort', topic(), init(), add(), write(0), mark(), stable(2), read(1, upto=2), read(0, upto=2), describe()),
    row('write_txn_markers: commit', topic(), init(), add(), write(0), mark(True), stable(2), read(1, upto=2), describe()),
    row('write_txn_markers: the coordinator aborts later', topic(), init(), add(), write(0), mark(True), stable(2), end(False), read(1, upto=3)),
    row('write_txn_markers: an epoch that is over', topic(), init(), init(), add(), write(0), mark(epoch=0), describe()),
    row('write_txn_markers: what is not there', topic(), init(), mark(partitions=(0, 7)), mark(name='{u}none')),
]


def credential(name='{u}anna', mechanism=1, iterations=4096, salt=b'salt and pepper', secret='secret', **more):
    hashed = hashlib.pbkdf2_hmac('sha512' if mechanism == 2 else 'sha256', secret.encode(), salt, max(iterations, 1))
    return dict({'name': name, 'mechanism': mechanism, 'iterations': iterations, 'salt': salt, 'salted_password': hashed}, **more)


def alter(*upsertions, deletions=()):
    return ask('alter_user_scram_credentials', 0, upsertions=list(upsertions), deletions=[{'name': n, 'mechanism': m} for n, m in deletions])


def users(*names):
    return ask('describe_user_scram_credentials', 0, users=[{'name': n} for n in names])


def known(name, mechanisms):
    """Until the user has keys of just these mechanisms, which Kafka learns a moment after it has said so."""
    def play(p):
        for _ in range(2000):
            answer = p.wire('a').call('describe_user_scram_credentials', 0, users=[{'name': p.fill(name)}])
            if sorted(c['mechanism'] for c in answer['results'][0]['credential_infos']) == list(mechanisms):
                return 'in time'
        return 'never: %r' % answer
    return Step('until %s has %r' % (name, mechanisms), play)


ANNA, BERTA = '{u}anna', '{u}berta'
CREDENTIALS = [
    row('scram: nobody', users(ANNA)),
    row('scram: made, changed, deleted', alter(credential()), known(ANNA, [1]), users(ANNA), alter(credential(mechanism=2, iterations=8192)),
        known(ANNA, [1, 2]), users(ANNA), alter(credential(iterations=5000)), alter(deletions=[(ANNA, 2)]), known(ANNA, [1]), users(ANNA),
        alter(deletions=[(ANNA, 1)]), known(ANNA, []), users(ANNA)),
    row('scram: two users in one request', alter(credential(), credential(BERTA, 2)), known(BERTA, [2]), known(ANNA, [1]), users(ANNA, BERTA)),
    row('scram: both mechanisms in one request', alter(credential(), credential(mechanism=2)).differs(
        'all of a user, or nothing: there is no need to ask twice', error_code=0)),
    row('scram: described twice', alter(credential()), known(ANNA, [1]), users(ANNA, ANNA), users(ANNA, '{u}nobody')),
    row('scram: the same twice', alter(credential(), credential(secret='other')), users(ANNA)),
    row('scram: deleted and made in one request', alter(credential()), known(ANNA, [1]), alter(credential(), deletions=[(ANNA, 1)])),
    row('scram: deleted twice', alter(credential()), known(ANNA, [1]), alter(deletions=[(ANNA, 1), (ANNA, 1)])),
    row('scram: deletes what is not there', alter(deletions=[(ANNA, 1)]), alter(deletions=[(ANNA, 2)])),
    row('scram: one of two cannot be', alter(credential(), deletions=[(ANNA, 2)]), users(ANNA)),
    row('scram: without a name', alter(credential('')), alter(deletions=[('', 1)])),
    row('scram: an unknown mechanism', alter(credential(mechanism=0)), alter(credential(mechanism=7)), alter(deletions=[(ANNA, 9)])),
    row('scram: too few iterations', alter(credential(iterations=4095)), alter(credential(iterations=0))),
    row('scram: too many iterations', alter(credential(iterations=16385))),
    row('scram: as many iterations as there may be', alter(credential(iterations=16384)), known(ANNA, [1]), users(ANNA)),
    row('scram: nothing at all', alter()),
]

ROWS = PRODUCERS + CREDENTIALS
