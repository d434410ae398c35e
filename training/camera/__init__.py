"""Learn the noise of one fixed camera from its own frames, and fine-tune a denoiser to it."""
