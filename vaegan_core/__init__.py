"""A VAE-GAN in PyTorch: frames, networks, losses, one exact trainer, measurements. Knows nothing of any search."""
