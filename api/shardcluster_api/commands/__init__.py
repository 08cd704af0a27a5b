"""The engine's own commands over HTTP: what is allowed, where it goes, how answers are joined."""
