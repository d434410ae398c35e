"""One file for each kind of autoencoder."""
