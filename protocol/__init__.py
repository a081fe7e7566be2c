"""What gateways and the server agree on, to the byte. Does no I/O; imports nothing of ours."""
