"""What is measured when a GPU is at hand for a few minutes: the parts of tools/on_gpu.py, and the page made of them."""
