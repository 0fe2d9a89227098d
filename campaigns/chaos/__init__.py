"""Plans, while every part is killed, stopped and disturbed at random."""
