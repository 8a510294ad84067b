"""The second stage, which processes each region: box heads, cascades, masks."""
