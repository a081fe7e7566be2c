"""`millwright drill`: what can go wrong on a site is made to go wrong, on purpose, and the books are read afterwards."""
