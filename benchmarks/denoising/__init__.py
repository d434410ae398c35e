"""The sections of `make bench-denoise`, a file each, and what they share."""
