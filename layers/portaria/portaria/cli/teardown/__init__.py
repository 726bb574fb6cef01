"""`portaria teardown`: what a deleted stack leaves behind, listed and removed."""
