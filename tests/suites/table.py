"""What `run` plays: the suites, what of them is left out, and what Millrace may fail.  To add one, add a row.

A suite's source is either a package of PyPI, by version and the sha256 of its source archive, or a commit of the project's
own repository, cloned by the developer below MILLRACE_SUITES_SRC (README.md says how).  Nothing of it is ever committed.
"""

# name of a suite's Python packages: pinned, so that a run can be repeated.
PYTHON_PACKAGES = ("pytest==8.4.2", "pytest-timeout==2.4.0", "gevent==25.9.1", "greenlet==3.2.4", "tornado==6.5.2", "twisted==25.5.0",
                   "amqp==5.4.2", "vine==5.1.0", "tzdata==2025.2", "packaging==25.0")

# rabbitmq-c has one test that speaks to a broker, so its example programs are run too: a shell script each, exit code 0.
# A program that never ends by itself is in the background; all of it ends with the process namespace.
RABBITMQ_C_EXAMPLES = (
    ("connect with a timeout", "build/examples/amqp_connect_timeout localhost 5672 5"),
    ("declare an exchange", "build/examples/amqp_exchange_declare localhost 5672 example direct"),
    ("listen and send", """
        rm -f build/listen.txt
        stdbuf -oL build/examples/amqp_listen localhost 5672 amq.direct example >build/listen.txt &
        for i in $(seq 50); do
            build/examples/amqp_sendstring localhost 5672 amq.direct example 'sent by example'
            sleep 0.1
            ! grep -sq 'sent by example' build/listen.txt || exit 0
        done
        exit 1"""),
    ("produce and consume", """
        rm -f build/consume.txt
        stdbuf -oL build/examples/amqp_consumer localhost 5672 >build/consume.txt &
        for i in $(seq 10); do
            build/examples/amqp_producer localhost 5672 2000 2000
            ! grep -sq 'Received [1-9]' build/consume.txt || exit 0
        done
        exit 1"""),
    ("confirms", "build/examples/amqp_confirm_select localhost 5672 2000 2000"),
)

SUITES = {
    # kind: how it is prepared and run (a class of `run`); tests: what of it speaks to a broker; seconds: its budget
    "rabbitmq-c": {
        "kind": "ctest", "git": "rabbitmq-c", "tag": "v0.16.0", "commit": "800d57c9ca7352181167ec3c6aba66b8518c321c",
        "examples": RABBITMQ_C_EXAMPLES, "seconds": 120,
        "about": "C; ctest with RUN_SYSTEM_TESTS, and its example programs"},
    "amqplib": {
        "kind": "node", "git": "amqplib", "tag": "v2.0.1", "commit": "7706d75dd5a63b45c4fca64b84f2cdf513c62288",
        "tests": ("test/connect.test.js", "test/channel_api.test.js", "test/callback_api.test.js"), "seconds": 180,
        "about": "JavaScript; the test files that connect to a broker"},
    "pika": {
        "kind": "pytest", "git": "pika", "tag": "1.4.4", "commit": "60fee4203a30d5dfa0500857cea6a65ef571d46c",
        "tests": ("tests/acceptance",), "seconds": 1500,
        "about": "Python; the acceptance tests, every adapter"},
    "py-amqp": {
        "kind": "pytest", "pip": "amqp", "version": "5.4.2",
        "sha256": "9362660c4a31150cf18e78cae2ce8aa1e929fc6c6739e69f6dd5dbea9c3edc82",
        "tests": ("t/integration/test_rmq.py",), "seconds": 180,
        "about": "Python; the integration tests that connect to a broker"},
    "kombu": {
        "kind": "pytest", "pip": "kombu", "version": "5.7.0",
        "sha256": "31e62fdfd2381caa3422f8e02b84a491d9a2180ddda74507b57f4cb1e1c2c2c9",
        "tests": ("t/integration/test_py_amqp.py",), "seconds": 300,
        "about": "Python; the integration tests of the AMQP transport"},
}

# (suite, part of a test's name, why it is played to neither broker)
LEFT_OUT = (
    ("pika", "WWWGoogleDotCom", "asks for an address on the internet, which is not the broker"),
    ("py-amqp", "tls", "its certificates come without the key of their CA, so no broker can show one that they accept; two need a server on the internet"),
)

# (suite, test, why Millrace may fail what RabbitMQ passes).  At most EXCEPTIONS_MAX of a suite; a row that is no longer
# needed is a failure.  docs/compatibility.md lists the same.
EXCEPTIONS_MAX = 0.03
EXCEPTIONS = (
    ("amqplib", "test/connect.test.js > Connect > Connect API > serverProperties",
     "demands the product name RabbitMQ; Millrace does not pretend to be another product"),
)
