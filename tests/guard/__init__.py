"""What an activation may cost, counted and not timed: instructions of the core, system calls of a worker.

``make guard`` measures both and compares them with bounds.toml; ``make guard RECORD=1`` writes that file anew.
"""
