"""Answers for one file of your own, once, without a plant: what stands behind `millwright forecast`, `millwright recommend`,
`millwright purchase` and `millwright schedule`. A module a command."""
