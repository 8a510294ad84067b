"""Reports, comparisons, probes and benchmarks."""
