"""What several groups of commands use."""
