"""The lecture, with receipts: every autoencoder shows what the theory says, in numbers and pictures."""
