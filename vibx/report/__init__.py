"""Tables and figures, drawn from records. Imports no jax."""
