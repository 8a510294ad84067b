"""Mask heads: for each region, which of its cells belong to the object (He et al. 2017)."""
