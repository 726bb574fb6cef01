"""`portaria smoke`: a deployed stack proves that it works, with what it makes for that and removes afterwards."""
