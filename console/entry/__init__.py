"""How a person gets in: tries that are counted, second factors, sessions that end, invitations, and an identity provider."""
