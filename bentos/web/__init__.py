"""web: the HTTP front that the services share: bounded bodies, one error form, one route table that also writes the OpenAPI."""
