"""What all trainings share: the base module, fitting, checkpoints, schedules, perturbations and progress."""
