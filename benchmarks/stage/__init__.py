"""What programs of both folders run on, and what they print."""
