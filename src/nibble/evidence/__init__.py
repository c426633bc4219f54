"""What `make evidence` runs for the tables of the README: which trainings, which evaluations, what is left."""
