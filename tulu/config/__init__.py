"""What is asked for: recipes, their fields and checks, stages and tasks, jobs and plans. Nothing here imports torch."""
