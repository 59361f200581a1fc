"""The PostgreSQL that comes with Signalbox: its files, its user, its roles. `console.postgres` starts it."""
