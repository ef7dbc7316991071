"""The case table is complete: every method of the AMQP method table has a row, and so has every error
of the reference's list of exact cases.  A feature without a row does not count as built."""

import pytest

import cases
import spec

ROWS = cases.all_rows()

# (method, code, what): queues.md 1.3, one line per case that a client can bring about.
ERRORS = [
    ('queue.declare', 404, 'passive, missing'), ('exchange.declare', 404, 'passive, missing'),
    ('queue.bind', 404, 'queue or exchange missing; nothing declared'), ('queue.unbind', 404, 'nothing declared'),
    ('queue.purge', 404, 'missing'), ('queue.delete', 404, 'nothing declared'),
    ('basic.consume', 404, 'missing'), ('basic.get', 404, 'missing'), ('basic.publish', 404, 'exchange missing'),
    ('exchange.bind', 404, 'missing'),
    ('queue.declare', 405, 'exclusive elsewhere'), ('basic.consume', 405, 'exclusive elsewhere'),
    ('basic.get', 405, 'exclusive elsewhere; single active consumer'), ('queue.purge', 405, 'exclusive elsewhere'),
    ('queue.delete', 405, 'exclusive elsewhere'), ('queue.bind', 405, 'exclusive elsewhere'),
    ('queue.unbind', 405, 'exclusive elsewhere'),
    ('queue.declare', 406, 'inequivalent; bad arguments; dead-letter key without exchange'),
    ('exchange.declare', 406, 'inequivalent; unknown type'),
    ('basic.ack', 406, 'unknown tag'), ('basic.nack', 406, 'unknown tag'), ('basic.reject', 406, 'unknown tag'),
    ('basic.publish', 406, 'expiration; user-id; CC; reply-to without consumer'),
    ('tx.select', 406, 'after confirm'), ('confirm.select', 406, 'after tx'), ('tx.commit', 406, 'not transactional'),
    ('tx.rollback', 406, 'not transactional'), ('basic.consume', 406, 'reply-to consumer; priority'),
    ('queue.delete', 406, 'in use; not empty'), ('exchange.delete', 406, 'in use'), ('queue.bind', 406, 'x-match; hash weight'),
    ('exchange.declare', 403, 'default; reserved; permission'), ('exchange.delete', 403, 'default; predeclared; permission'),
    ('queue.bind', 403, 'default exchange; permission'), ('queue.unbind', 403, 'default exchange; permission'),
    ('exchange.bind', 403, 'default exchange; permission'), ('exchange.unbind', 403, 'default exchange; permission'),
    ('queue.declare', 403, 'reserved; permission'), ('basic.publish', 403, 'internal exchange; permission'),
    ('queue.purge', 403, 'permission'), ('queue.delete', 403, 'permission'), ('basic.get', 403, 'permission'),
    ('basic.consume', 403, 'exclusive consumer; permission'),
    ('connection.start-ok', 403, 'login refused'),
    ('basic.consume', 530, 'consumer tag used twice'), ('connection.open', 530, 'vhost'), ('connection.tune-ok', 530, 'bounds'),
    ('channel.open', 530, 'over channel_max'), ('channel.open', 504, 'twice'),
    ('basic.publish', 540, 'immediate'), ('basic.qos', 540, 'prefetch size'), ('basic.recover', 540, 'without requeue'),
    ('basic.recover-async', 540, 'without requeue'), ('channel.flow', 540, 'inactive'), ('queue.delete', 540, 'quorum, if-unused'),
]


def _codes(observations):
    return {o[1]['reply_code'] for o in observations or () if isinstance(o, list) and len(o) > 1 and
            isinstance(o[1], dict) and isinstance(o[1].get('reply_code'), int)}


DEMANDED = {(m, code) for r in ROWS for s in r.steps for m in s.methods
            for code in ({s.error[0]} if s.error else set()) | _codes(s.millrace)}
SENT = {m for r in ROWS for s in r.steps for m in s.methods} | {'channel.close-ok', 'connection.close-ok', 'channel.open'}


@pytest.mark.parametrize('method', sorted(m.name for m in spec.METHODS.values() if m.direction in 'cb'))
def test_method_has_a_row(method):
    assert method in SENT, 'no case row sends ' + method


@pytest.mark.parametrize('method,code,what', ERRORS, ids=lambda v: str(v))
def test_error_has_a_row(method, code, what):
    assert (method, code) in DEMANDED, 'no case row demands %d of %s (%s)' % (code, method, what)


def test_every_difference_has_a_reason():
    for r in ROWS:
        for s in r.steps:
            assert (s.millrace is None and not s.loose) or s.why, '%s: %s' % (r.name, s)
        assert r.only is None or r.why, r.name
