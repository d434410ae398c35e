"""What benchmarks/soak.py is made of: traffic with known answers, disturbances, and the vital signs of a process."""
