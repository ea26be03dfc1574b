"""Fixtures live in plugin modules, one per kind of thing they provide."""

import signal

# A shell's background job begins with Ctrl-C ignored, and so would every program that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = [
    "tests.support.browser_fixtures",
    "tests.support.closed_ports",
    "tests.support.folder_fixtures",
    "tests.support.log_fixtures",
    "tests.support.no_stray_loop",
    "tests.support.aws_fixtures",
    "tests.support.kafka_fixtures",
    "tests.support.redis_fixtures",
    "tests.support.store_labs",
]
