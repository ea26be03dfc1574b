"""Fixtures live in plugin modules, one per kind of thing they provide."""

pytest_plugins = [
    "tests.support.store_labs",
]
