"""The configuration of the clients: what each tool's files say, how they are written, undone, and proven."""
