"""A machine with a GPU, lent for a quarter of an hour and reached by files alone: see README.md beside this."""
