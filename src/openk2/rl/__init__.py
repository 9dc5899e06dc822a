"""General reinforcement learning: the gym of tasks, rewards and the critic, K2's objective, the loop around them."""
