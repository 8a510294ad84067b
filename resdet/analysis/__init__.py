"""Pages and measurements about runs and models: reports, comparisons, probes and benchmarks."""
