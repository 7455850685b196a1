"""What a person asks of a daemon, or of the machines around it. Each module is one command.

Nothing here imports the network stack at its top: a command starts in the time that its own work takes.
"""
