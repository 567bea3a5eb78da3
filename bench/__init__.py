"""Benchmarks: ratios taken in turns in one run, since absolute times on shared machines mean little."""
