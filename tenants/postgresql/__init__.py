"""Django's PostgreSQL, with the tenant scope said before every statement. `ENGINE` in the settings names this package."""
