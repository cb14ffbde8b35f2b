"""Reader, mapping and templates against arbitrary bytes: `make fuzz`. Guided by the lines that an input reaches."""
