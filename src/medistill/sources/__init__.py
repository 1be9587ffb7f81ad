"""Real images from files: each reader returns LabelledImages."""
