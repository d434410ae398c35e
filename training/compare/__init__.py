"""Which kind of autoencoder suits a camera: all, trained on its own normal frames, beside what learns nothing."""
