"""What the checks run on: cases, tiny models, stand-ins, and observers of what components do."""
