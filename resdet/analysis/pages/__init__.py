"""HTML pages and SVG plots, each in one file that loads nothing else."""
