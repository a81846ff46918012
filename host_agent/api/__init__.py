"""The door: routes, bodies, problems and the OpenAPI document."""
