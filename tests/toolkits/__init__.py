"""Programs with a real GUI loop, each run in a process of its own by tests/test_gui.py."""
