"""What is minimized: formulas, the terms of one configuration, and the control of the KL weight."""
