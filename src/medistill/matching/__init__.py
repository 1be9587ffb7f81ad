"""What is matched, and the exact gradient of the match."""
