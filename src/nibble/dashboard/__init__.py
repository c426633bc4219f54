"""The W&B dashboard, as code."""
