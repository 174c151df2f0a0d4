from tasks.scanning.events_file import quarantine_rows, read_events
