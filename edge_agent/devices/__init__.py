"""A plant to run on: a simulated line with known faults, or recorded files played back. Speaks MQTT like any plant."""
