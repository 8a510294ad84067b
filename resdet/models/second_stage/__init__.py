"""What happens to each region: box heads, cascades, masks."""
