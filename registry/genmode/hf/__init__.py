"""All use of names that transformers keeps to itself; tested against the oldest and newest supported release."""
