"""What computes: devices and their clocks, several processes on one job, random states; code that changes results."""
