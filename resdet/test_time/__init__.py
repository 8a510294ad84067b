"""Parts added to a trained detector: refinement, voting, maxout, views, ensembles."""
