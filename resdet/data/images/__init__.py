"""Images and masks: reading, transforming, encoding."""
