"""The AMQP 0-9-1 method table with RabbitMQ's extensions, as data.

One line per method: class.method, ids, direction, '+' when it carries content, answers, fields.
Everything else (the codec in wire.py, the meta test that every method has a case row, the
generator) reads this table; adding a method is one line here.

Directions: c = client sends it, s = server sends it, b = both.
Types: octet short long longlong shortstr longstr bit table timestamp.  A field name that starts with
'_' is reserved: it is written as zero and never shown.
"""

from collections import namedtuple

Field = namedtuple('Field', 'name type')
Method = namedtuple('Method', 'name class_id method_id direction content replies fields')

_METHODS = """
connection.start 10 10 s - connection.start-ok : version_major:octet version_minor:octet server_properties:table mechanisms:longstr locales:longstr
connection.start-ok 10 11 c - - : client_properties:table mechanism:shortstr response:longstr locale:shortstr
connection.secure 10 20 s - connection.secure-ok : challenge:longstr
connection.secure-ok 10 21 c - - : response:longstr
connection.tune 10 30 s - connection.tune-ok : channel_max:short frame_max:long heartbeat:short
connection.tune-ok 10 31 c - - : channel_max:short frame_max:long heartbeat:short
connection.open 10 40 c - connection.open-ok : virtual_host:shortstr _capabilities:shortstr _insist:bit
connection.open-ok 10 41 s - - : _known_hosts:shortstr
connection.close 10 50 b - connection.close-ok : reply_code:short reply_text:shortstr class_id:short method_id:short
connection.close-ok 10 51 b - - :
connection.blocked 10 60 b - - : reason:shortstr
connection.unblocked 10 61 b - - :
connection.update-secret 10 70 c - connection.update-secret-ok : new_secret:longstr reason:shortstr
connection.update-secret-ok 10 71 s - - :
channel.open 20 10 c - channel.open-ok : _out_of_band:shortstr
channel.open-ok 20 11 s - - : _channel_id:longstr
channel.flow 20 20 b - channel.flow-ok : active:bit
channel.flow-ok 20 21 b - - : active:bit
channel.close 20 40 b - channel.close-ok : reply_code:short reply_text:shortstr class_id:short method_id:short
channel.close-ok 20 41 b - - :
access.request 30 10 c - access.request-ok : realm:shortstr exclusive:bit passive:bit active:bit write:bit read:bit
access.request-ok 30 11 s - - : _ticket:short
exchange.declare 40 10 c - exchange.declare-ok : _ticket:short exchange:shortstr type:shortstr passive:bit durable:bit auto_delete:bit internal:bit nowait:bit arguments:table
exchange.declare-ok 40 11 s - - :
exchange.delete 40 20 c - exchange.delete-ok : _ticket:short exchange:shortstr if_unused:bit nowait:bit
exchange.delete-ok 40 21 s - - :
exchange.bind 40 30 c - exchange.bind-ok : _ticket:short destination:shortstr source:shortstr routing_key:shortstr nowait:bit arguments:table
exchange.bind-ok 40 31 s - - :
exchange.unbind 40 40 c - exchange.unbind-ok : _ticket:short destination:shortstr source:shortstr routing_key:shortstr nowait:bit arguments:table
exchange.unbind-ok 40 51 s - - :
queue.declare 50 10 c - queue.declare-ok : _ticket:short queue:shortstr passive:bit durable:bit exclusive:bit auto_delete:bit nowait:bit arguments:table
queue.declare-ok 50 11 s - - : queue:shortstr message_count:long consumer_count:long
queue.bind 50 20 c - queue.bind-ok : _ticket:short queue:shortstr exchange:shortstr routing_key:shortstr nowait:bit arguments:table
queue.bind-ok 50 21 s - - :
queue.purge 50 30 c - queue.purge-ok : _ticket:short queue:shortstr nowait:bit
queue.purge-ok 50 31 s - - : message_count:long
queue.delete 50 40 c - queue.delete-ok : _ticket:short queue:shortstr if_unused:bit if_empty:bit nowait:bit
queue.delete-ok 50 41 s - - : message_count:long
queue.unbind 50 50 c - queue.unbind-ok : _ticket:short queue:shortstr exchange:shortstr routing_key:shortstr arguments:table
queue.unbind-ok 50 51 s - - :
basic.qos 60 10 c - basic.qos-ok : prefetch_size:long prefetch_count:short global:bit
basic.qos-ok 60 11 s - - :
basic.consume 60 20 c - basic.consume-ok : _ticket:short queue:shortstr consumer_tag:shortstr no_local:bit no_ack:bit exclusive:bit nowait:bit arguments:table
basic.consume-ok 60 21 s - - : consumer_tag:shortstr
basic.cancel 60 30 b - basic.cancel-ok : consumer_tag:shortstr nowait:bit
basic.cancel-ok 60 31 b - - : consumer_tag:shortstr
basic.publish 60 40 c + - : _ticket:short exchange:shortstr routing_key:shortstr mandatory:bit immediate:bit
basic.return 60 50 s + - : reply_code:short reply_text:shortstr exchange:shortstr routing_key:shortstr
basic.deliver 60 60 s + - : consumer_tag:shortstr delivery_tag:longlong redelivered:bit exchange:shortstr routing_key:shortstr
basic.get 60 70 c - basic.get-ok,basic.get-empty : _ticket:short queue:shortstr no_ack:bit
basic.get-ok 60 71 s + - : delivery_tag:longlong redelivered:bit exchange:shortstr routing_key:shortstr message_count:long
basic.get-empty 60 72 s - - : _cluster_id:shortstr
basic.ack 60 80 b - - : delivery_tag:longlong multiple:bit
basic.reject 60 90 c - - : delivery_tag:longlong requeue:bit
basic.recover-async 60 100 c - - : requeue:bit
basic.recover 60 110 c - basic.recover-ok : requeue:bit
basic.recover-ok 60 111 s - - :
basic.nack 60 120 b - - : delivery_tag:longlong multiple:bit requeue:bit
tx.select 90 10 c - tx.select-ok :
tx.select-ok 90 11 s - - :
tx.commit 90 20 c - tx.commit-ok :
tx.commit-ok 90 21 s - - :
tx.rollback 90 30 c - tx.rollback-ok :
tx.rollback-ok 90 31 s - - :
confirm.select 85 10 c - confirm.select-ok : nowait:bit
confirm.select-ok 85 11 s - - :
"""

PROPERTIES = [Field(*p.split(':')) for p in (
    'content_type:shortstr content_encoding:shortstr headers:table delivery_mode:octet priority:octet '
    'correlation_id:shortstr reply_to:shortstr expiration:shortstr message_id:shortstr timestamp:timestamp '
    'type:shortstr user_id:shortstr app_id:shortstr cluster_id:shortstr').split()]


def _parse():
    methods = {}
    for line in _METHODS.strip().splitlines():
        head, _, fields = line.partition(':')
        name, cid, mid, direction, content, replies = head.split()
        methods[name] = Method(
            name, int(cid), int(mid), direction, content == '+',
            () if replies == '-' else tuple(replies.split(',')),
            tuple(Field(*f.split(':')) for f in fields.split()))
    return methods


METHODS = _parse()
BY_ID = {(m.class_id, m.method_id): m for m in METHODS.values()}

# Reply codes with their names and scopes (queues.md 1.2).
CHANNEL_ERRORS = {311: 'CONTENT_TOO_LARGE', 312: 'NO_ROUTE', 313: 'NO_CONSUMERS', 403: 'ACCESS_REFUSED',
                  404: 'NOT_FOUND', 405: 'RESOURCE_LOCKED', 406: 'PRECONDITION_FAILED'}
CONNECTION_ERRORS = {320: 'CONNECTION_FORCED', 402: 'INVALID_PATH', 501: 'FRAME_ERROR', 502: 'SYNTAX_ERROR',
                     503: 'COMMAND_INVALID', 504: 'CHANNEL_ERROR', 505: 'UNEXPECTED_FRAME',
                     506: 'RESOURCE_ERROR', 530: 'NOT_ALLOWED', 540: 'NOT_IMPLEMENTED', 541: 'INTERNAL_ERROR'}
