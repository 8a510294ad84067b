"""The one reader of annotations: records, verdicts, class names, run lengths and results files."""
