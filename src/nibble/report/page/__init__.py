"""One HTML file that shows runs side by side and each run in detail, without a network."""
