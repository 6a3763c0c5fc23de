"""Parameters, artifacts, tracking, seeding, devices: nothing here changes a result."""
