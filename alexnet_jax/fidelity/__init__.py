"""What a network is, in numbers, and which of the networks called AlexNet it follows."""
