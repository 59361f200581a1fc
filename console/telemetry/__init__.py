"""OpenTelemetry out of what is stored: spans are made of a run's events after it has ended, and leave by OTLP over HTTP."""
