"""General reinforcement learning: the gym of tasks, rewards and the critic, K2's objective, and the loop around them."""
