"""Benchmarks: they report ratios of alternating measurements, because absolute times vary on shared machines."""
