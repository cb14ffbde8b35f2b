"""Real runs, killed, frozen and stopped at random against a service with every fault; then the truth is compared."""
