"""Arithmetic without weights; every result can be checked with pencil and paper."""
