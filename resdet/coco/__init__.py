"""The only code that reads annotations and results: records, verdicts, class names, run lengths."""
