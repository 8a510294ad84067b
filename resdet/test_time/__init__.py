"""Adds parts to a trained detector at test time: refinement, voting, maxout, views, ensembles."""
