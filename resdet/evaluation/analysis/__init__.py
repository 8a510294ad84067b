"""What the figures hide: matches, curves, kinds of errors, uncertainty."""
