"""Arithmetic without weights: everything here can be checked with a pencil."""
