"""What the machine does meanwhile: sensors, sampler, windows, energy."""
