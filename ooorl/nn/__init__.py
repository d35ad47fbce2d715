"""Networks and the arithmetic of losses: arrays in, arrays out."""
