"""The MQTT side: status, telemetry, commands."""
