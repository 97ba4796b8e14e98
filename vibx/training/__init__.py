"""Training: state, step, epochs, checkpoints and the run as a whole."""
