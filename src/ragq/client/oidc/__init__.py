"""The OpenID provider at which people sign in."""
