"""All modules with weights, and their construction from a config."""
