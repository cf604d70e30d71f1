"""Replicas under the real clock: Ray carries what peers say to each other."""
