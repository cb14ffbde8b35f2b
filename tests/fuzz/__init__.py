"""What reads inputs, and answers, against arbitrary bytes: `make fuzz`. Guided by the lines that an input reaches."""
