"""The commands as a user sees them: names, options and help; what they do is imported when they run."""
