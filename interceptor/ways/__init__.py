"""The ways in: how the request of a page reaches the host."""
