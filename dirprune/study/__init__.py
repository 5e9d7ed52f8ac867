"""What is optimised and over what: objectives, search space, and who watches a study."""
