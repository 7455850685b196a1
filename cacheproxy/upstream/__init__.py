"""HTTP out: the guarded dialer, tokens, credentials, pacing, the registry client."""
