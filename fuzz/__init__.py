"""Fuzzing: what is tried is in `targets`, how in README.md."""
