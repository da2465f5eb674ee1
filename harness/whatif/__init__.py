"""`bench whatif`: what a stage costs, by taking it away; what a part of the fast pipeline gains, by putting it in."""
