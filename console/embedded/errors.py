class EmbeddedPostgresError(Exception):
    """The embedded PostgreSQL cannot be used. The message says why and names the cure."""
