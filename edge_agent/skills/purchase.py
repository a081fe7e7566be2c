"""What to buy: which part, from whom, how many, when. No I/O."""
