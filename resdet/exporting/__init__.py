"""Exports a trained detector for other programs: a folder with the graph, its contract, an example and a card."""
