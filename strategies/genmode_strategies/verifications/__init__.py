"""Ways to accept a draft where tokens are drawn, one module each.

p is what the model and the call's processors say at each position of a draft x_1 .. x_k, q what the drafter drew from,
after the same processors; of a drafter that draws nothing q is 1 at its token.
"""
