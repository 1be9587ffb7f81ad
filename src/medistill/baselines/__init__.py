"""What the method is compared with, all judged by the same protocol."""
