"""The tests; shared parts are imported as `tests.name`."""
