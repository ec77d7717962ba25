"""OpenAPI 3.1 from the route table and the schemas."""

from __future__ import annotations

from typing import Any

import msgspec

import tvops
from tvops.engine.gateway.problems import CODES
from tvops.engine.gateway.routes import ROUTES, Route
from tvops.engine.gateway.schemas import Problem

_REFERENCE = "#/components/schemas/{name}"
_ALWAYS = ("malformed_request", "method_not_allowed", "host_refused", "origin_refused", "headers_too_large")
_WITH_BODY = ("malformed_json", "invalid_field", "unknown_field", "missing_field", "number_not_string",
              "body_too_large", "unsupported_media_type")  # fmt: skip
_MEDIA = {str: "text/plain"}
_SECURITY: list[dict[str, list[str]]] = [{"apiKey": []}, {"bearer": []}]


def build_openapi() -> dict[str, Any]:
    """Give the OpenAPI document."""
    types = [t for route in ROUTES for t in (route.response, route.body, route.query) if t is not None]
    schemas, components = msgspec.json.schema_components([*types, Problem], ref_template=_REFERENCE)
    known = {id(t): schema for t, schema in zip(types, schemas, strict=False)}
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, known, components)
    queries = {route.query.__name__ for route in ROUTES}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tvops order gateway",
            "version": tvops.__version__,
            "description": "Numbers and ids are strings. Errors are RFC 9457 problem details with a code.",
        },
        "paths": paths,
        "components": {
            "schemas": {name: schema for name, schema in components.items() if name not in queries},
            "securitySchemes": {
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _operation(route: Route, known: dict[int, Any], components: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.handler,
        "summary": route.summary,
        "parameters": _parameters(route, components),
        "responses": _responses(route, known),
        "security": [] if route.public else _SECURITY,
    }
    if route.admin:
        operation["description"] = "Needs an admin key."
    if route.body is not None:
        content = {"application/json": {"schema": known[id(route.body)]}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _parameters(route: Route, components: dict[str, Any]) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = []
    if "{" in route.path:
        name = route.path.partition("{")[2].rstrip("}")
        parameters.append({"name": name, "in": "path", "required": True, "schema": {"type": "string"}})
    for name, schema in components[route.query.__name__].get("properties", {}).items():
        parameters.append({"name": name, "in": "query", "required": False, "schema": schema})
    return parameters


def _responses(route: Route, known: dict[int, Any]) -> dict[str, Any]:
    media = _MEDIA.get(route.response, "application/json")
    good = {"description": "Done", "content": {media: {"schema": known[id(route.response)]}}}
    responses: dict[str, Any] = {str(route.status): good}
    if route.handler == "place":
        responses["200"] = {**good, "description": "Placed before: the order as it stands (Idempotent-Replayed)"}
    if route.handler == "health":
        responses["503"] = {**good, "description": "Not healthy"}
    codes = [*_ALWAYS, *route.problems, *(_WITH_BODY if route.body is not None else ())]
    codes += [] if route.public else ["unauthorized"]
    codes += ["forbidden"] if route.admin else []
    for status in sorted({CODES[code][0] for code in codes}):
        names = [code for code in dict.fromkeys(codes) if CODES[code][0] == status]
        if status == 422 and route.handler == "place":
            names.append("the reason of the engine, such as max_position")
        responses[str(status)] = _problem(names)
    return responses


def _problem(names: list[str]) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": {"$ref": _REFERENCE.format(name="Problem")}}}
    return {"description": ", ".join(names), "content": content}
