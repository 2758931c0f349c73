"""What the commands share: arguments, errors, signals, devices, several processes."""
