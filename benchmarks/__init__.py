"""Every number in the README has the command here that prints it: make bench-NAME DATA=... ARGS="--json FILE"."""
