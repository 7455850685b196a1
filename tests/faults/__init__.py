"""The whole daemon before a scripted upstream that fails: what clients hear, and that it passes."""
