"""What training costs: floating-point operations, counted and analytic, and memory."""
