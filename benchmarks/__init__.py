"""Benchmarks: programs that measure this package beside others; no part of the package itself."""
