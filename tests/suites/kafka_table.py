"""What `kafka_clients` plays: the clients, and where Millrace shows another thing than Kafka and is meant to.

A client's packages are pinned by kafka/package-lock.json, kafka/requirements.txt or kafka/go/go.sum; `version` is for the report.
"""

CLIENTS = {
    "kafkajs": {"kind": "node", "program": "kafkajs.js", "version": "2.2.4"},
    "@platformatic/kafka": {"kind": "node", "program": "platformatic.mjs", "version": "2.12.1"},
    "confluent-kafka": {"kind": "python", "program": "confluent.py", "version": "2.16.1"},
    "aiokafka": {"kind": "python", "program": "aio.py", "version": "0.14.0"},
    "franz-go": {"kind": "go", "program": "franz", "version": "1.22.3"},
}

# (client, step): why
DIFFERS = {
}
