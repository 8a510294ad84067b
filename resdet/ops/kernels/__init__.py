"""Kernels for a GPU, in Triton. Nothing here is imported on a CPU, where Triton may be missing.

With TRITON_INTERPRET=1 in the environment they run on tensors of a CPU, which is how the tests check them.
"""
