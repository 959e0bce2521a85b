"""contracts: types and pure mathematics; standard library and numpy only, no input or output."""
