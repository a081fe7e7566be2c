"""`millwright demo`: the whole loop on one machine, in processes of its own, accounted for to the last reading."""
