"""The command line `authsvc`: one module per noun, joined in `main`."""
