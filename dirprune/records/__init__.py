"""What a study leaves on disk: each trial's events, and the tables, models and pictures derived from them."""
