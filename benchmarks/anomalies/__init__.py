"""The sections of `make bench-anomaly`, a file each, and what they share."""
