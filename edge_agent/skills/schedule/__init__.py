"""What to run when, on a gateway: dispatch rules, local search, repair. No I/O."""
