"""The Celery application of test_clients.py; worker and test import it with the broker in the environment."""

import os
import time

import celery

app = celery.Celery('celery_app', broker=os.environ['CELERY_TEST_BROKER'], backend=os.environ['CELERY_TEST_BACKEND'])
app.conf.update(
    task_default_queue=os.environ['CELERY_TEST_QUEUE'], task_queue_max_priority=10, task_default_priority=0,
    broker_connection_timeout=5, result_expires=60,
    worker_hijack_root_logger=False, broker_connection_retry=False, result_chord_retry_interval=0.1,
    broker_transport_options={'confirm_publish': True})
if os.environ.get('CELERY_TEST_LATE'):      # one message at a time: the queue decides the order, not the worker
    app.conf.update(worker_prefetch_multiplier=1, task_acks_late=True)


@app.task
def add(x, y):
    return x + y


@app.task
def total(numbers):
    return sum(numbers)


@app.task(bind=True, max_retries=3)
def flaky(self, needed):
    if self.request.retries < needed:
        raise self.retry(countdown=0.05)
    return self.request.retries


@app.task
def fail():
    raise ValueError('on purpose')


@app.task
def when():
    return time.time()


@app.task
def note(path, text):
    with open(path, 'a') as f:
        f.write(text + '\n')
