"""Pages and plots: one HTML file that needs nothing else."""
