"""What a command does from input to output."""
