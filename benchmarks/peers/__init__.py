"""What measurements need of other task queues next to the contenders."""
