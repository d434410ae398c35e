"""Learn autoencoders from camera frames, measure them, and export them as model folders."""
