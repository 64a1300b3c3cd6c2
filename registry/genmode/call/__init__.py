"""From the arguments of a call to its result: request, processors, criteria, engine, loop."""
