"""The case table: every feature of the AMQP engine as a row that both brokers play.

A module here defines ROWS; a row is row('area: what', step, step, …) with the words of script.py.
`.err(code, text)` is demanded of both brokers; `.differs(answer, why)` is what Millrace answers
instead, with the reason.  only='millrace' marks a row whose expectations are written by hand because
RabbitMQ 3.10 has no such feature.
"""

import importlib
import pkgutil

import script


def row(name, *steps, only=None, why=None, vhosts=('/',)):
    flat = []
    for s in steps:
        flat += s if isinstance(s, list) else [s]
    if only and not why:
        raise ValueError(name + ': a row for one broker needs a reason')
    return script.Row(name, flat, only, why, vhosts)


def all_rows():
    rows = []
    for module in sorted(m.name for m in pkgutil.iter_modules(__path__)):
        rows += importlib.import_module('cases.' + module).ROWS
    names = [r.name for r in rows]
    twice = {n for n in names if names.count(n) > 1}
    if twice:
        raise ValueError('two rows are named ' + ', '.join(sorted(twice)))
    return rows
