"""What is measured of a trained model, a file in `measures/` for each quantity."""
