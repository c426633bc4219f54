"""Word error rate with its uncertainty, and the records that results are made of."""
