//! The OpenAPI document, and the page that shows it.
//!
//! It is made of data: the operations, one line each; the schemas, whose closed lists and writable properties are
//! those of the code; and the parameters of lists, which the lists' own descriptions give. Tests hold it to the
//! router and to every answer that the API's tests see, so that nothing is said here that is not so.

mod schemas;

use super::{
    operation::{Access, Operation, Parameters},
    wire::property::{Property, PropertyType},
};
use axum::{
    http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE},
    response::IntoResponse,
};
use serde_json::{Map, Value, json};

/// Without anything from elsewhere: it works in a network without the internet.
const PAGE: &str = include_str!("openapi/docs.html");
/// The page is one file, and asks this server for the document only.
const ONLY_ITSELF: &str = "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                           frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// RFC 3339 in UTC, for the pattern of a range; a year has a 29th of February as the calendar has it.
const TIME: &str = "([0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))\
                    |([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29)\
                    T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?Z";

pub(super) async fn page() -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/html; charset=utf-8"), (CONTENT_SECURITY_POLICY, ONLY_ITSELF)], PAGE)
}

/// The document of these operations, in OpenAPI 3.1.
pub(super) fn document(operations: &[Operation]) -> Value {
    let mut paths = Map::new();
    for operation in operations {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = described(operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Wicketgate",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "Publishes private TCP services to sites that can only speak IPsec. A *share* maps an \
                ingress port of a *tunnel*'s load balancer to a private target that the hosting agents of an \
                *environment* reach. Writes are asynchronous: they answer 202, and `status` shows the progress.",
        },
        "servers": [{"url": "/"}],
        "tags": tags(operations),
        "security": [{"bearer": []}, {"basic": []}],
        "paths": paths,
        "components": {
            "securitySchemes": security_schemes(),
            "schemas": schemas::all(),
            "parameters": common_parameters(),
            "responses": errors(),
        },
    })
}

fn tags(operations: &[Operation]) -> Value {
    let mut names: Vec<&str> = Vec::new();
    for operation in operations {
        if !names.contains(&operation.tag) {
            names.push(operation.tag);
        }
    }
    names.into_iter().map(|name| json!({"name": name})).collect()
}

fn security_schemes() -> Value {
    let scopes = json!({
        "frontdoor.read": "Read everything but keys",
        "frontdoor.write": "Create, change and delete; read VPN configurations, which hold keys",
        "frontdoor.admin": "API accounts, and what a Frontdoor is allowed",
    });
    json!({
        "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT",
            "description": "A JWT, the secret of an API account, or the admin token"},
        "basic": {"type": "http", "scheme": "basic",
            "description": "RFC 7617, with a token as the password; `Basic username:token` is taken as it is, too"},
        "oauth": {"type": "oauth2", "flows": {"clientCredentials": {"tokenUrl": "/oauth/token", "scopes": scopes}}},
    })
}

/// What any operation can be answered with, and the body that each error has.
fn errors() -> Value {
    let mut all = Map::new();
    for (status, name, description) in ERRORS {
        let mut answer = json!({
            "description": description,
            "content": {"application/json": {
                "schema": {"$ref": "#/components/schemas/Error"},
                "example": {"error": name, "message": description},
            }},
        });
        match status {
            401 => {
                answer["headers"] =
                    json!({"WWW-Authenticate": {"schema": {"type": "string"}, "required": true}})
            }
            429 => {
                answer["headers"] = json!({"Retry-After": {"schema": {"type": "integer"}, "required": true}})
            }
            _ => {}
        }
        all.insert(status.to_string(), answer);
    }
    Value::Object(all)
}

const ERRORS: [(u16, &str, &str); 13] = [
    (400, "invalid_request", "Value for <property> must be of <type>, or the rule that was broken"),
    (401, "unauthorized", "Bearer token is missing or invalid"),
    (403, "not_authorized", "The token lacks the scope, or the Frontdoor is unknown or not accessible"),
    (404, "not_found", "IPsec share <id> not found"),
    (406, "not_acceptable", "Accept must admit application/json or application/hal+json"),
    (408, "timeout", "The body did not arrive in time"),
    (
        409,
        "conflict",
        "The request conflicts with another resource: the message names the property and the resource",
    ),
    (412, "precondition_failed", "The resource has changed: its ETag no longer matches If-Match"),
    (413, "too_large", "The body must not have more than 1048576 bytes"),
    (415, "unsupported_media_type", "Content-Type must be application/json"),
    (429, "too_many_requests", "Too many requests: try again later"),
    (500, "internal", "Internal error; see the server log for request <id>"),
    (503, "unavailable", "The database does not answer"),
];

fn common_parameters() -> Value {
    let text = json!({"type": "string"});
    // RFC 9110 §8.8.3.
    let tags = json!({"type": "string",
        "pattern": r#"^(\*|(W/)?"[!#-~]*"(, ?(W/)?"[!#-~]*")*)?$"#, "example": r#""0f9d2c""#});
    let length = json!({"type": "string", "pattern":
        "^(([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?|P([0-9]+D)?(T([0-9]+H)?([0-9]+M)?([0-9]+S)?)?)$"});
    json!({
        "frontdoorId": {"name": "frontdoorId", "in": "path", "required": true,
            "schema": {"$ref": "#/components/schemas/Uuid"}},
        "id": {"name": "id", "in": "path", "required": true, "schema": text},
        "page": {"name": "page", "in": "query", "description": "From 0. A page past the end is empty",
            "schema": {"type": "integer", "format": "int64", "minimum": 0, "default": 0}},
        "size": {"name": "size", "in": "query",
            "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 20}},
        "duration": {"name": "duration", "in": "query", "example": "1h30m", "schema": length,
            "description": "`15m`, `1h`, `1h30m`, `7d` or ISO 8601; 24 h if left out, 30 days at most"},
        "step": {"name": "step", "in": "query", "example": "10s", "schema": length,
            "description": "Of one sample, written like `duration`; chosen to give 30 to 120 samples if left out"},
        "ifMatch": {"name": "If-Match", "in": "header", "schema": tags,
            "description": "ETags of the states that the write applies to; 412 if the resource is in another one"},
        "ifNoneMatch": {"name": "If-None-Match", "in": "header", "schema": tags,
            "description": "The ETag of the client's copy: 304 if it is still current"},
        "idempotencyKey": {"name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
            "description": "Requests with the same key are executed once within a day"},
        "verbose": {"name": "verbose", "in": "query", "allowEmptyValue": true, "schema": {"type": "string"},
            "description": "Adds the last run of every background task, whatever its value"},
        "lastEventId": {"name": "Last-Event-ID", "in": "header",
            "schema": {"type": "string", "pattern": "^[0-9]{0,18}$"},
            "description": "The id of the last event received: the stream continues after it"},
    })
}

fn described(operation: &Operation) -> Value {
    let mut it = json!({
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "parameters": parameters(operation),
        "responses": responses(operation),
    });
    it["security"] = match operation.access {
        Access::Public => json!([]),
        Access::Scope(scope) => json!([{"bearer": []}, {"basic": []}, {"oauth": [scope]}]),
    };
    if let Some((schema, required)) = operation.body {
        let schema = json!({"schema": {"$ref": format!("#/components/schemas/{schema}")}});
        let mut content = Map::new();
        content.insert("application/json".to_owned(), schema.clone());
        if operation.method == "patch" {
            content.insert("application/merge-patch+json".to_owned(), schema.clone());
        }
        if operation.path == "/oauth/token" {
            content.insert("application/x-www-form-urlencoded".to_owned(), schema);
        }
        it["requestBody"] = json!({"required": required, "content": content});
    }
    it
}

fn parameters(operation: &Operation) -> Vec<Value> {
    let common = |name: &str| json!({"$ref": format!("#/components/parameters/{name}")});
    let mut all = Vec::new();
    for name in ["frontdoorId", "id"] {
        if operation.path.contains(&format!("{{{name}}}")) {
            all.push(common(name));
        }
    }
    match operation.method {
        "post" if matches!(operation.access, Access::Scope(_)) => all.push(common("idempotencyKey")),
        "get" if is_tagged(operation) => all.push(common("ifNoneMatch")),
        _ => {}
    }
    match operation.parameters {
        Parameters::None => {}
        Parameters::Named(names) => all.extend(names.iter().map(|name| common(name))),
        Parameters::One(name, values) => all.push(json!({
            "name": name, "in": "query", "schema": {"type": "string", "enum": values}
        })),
        Parameters::List(properties) => {
            all.extend([common("page"), common("size"), sort(properties)]);
            all.extend(properties.iter().filter(|p| p.column.is_some()).map(filter));
        }
    }
    all
}

/// Whether its answer has an ETag.
fn is_tagged(operation: &Operation) -> bool {
    let is_resource = |schema: &str| {
        schema.starts_with(|c: char| c.is_ascii_uppercase())
            && schema != "VpnConfig"
            && !schema.ends_with("Page")
    };
    matches!(operation.access, Access::Scope(_))
        && operation.answers.iter().any(|(_, schema)| is_resource(schema))
}

fn sort(properties: &[Property]) -> Value {
    let listed = properties.iter().filter(|p| p.column.is_some());
    let names: Vec<_> = listed.map(|p| p.name.replace('.', "\\.")).collect();
    json!({
        "name": "sort", "in": "query", "explode": true,
        "description": "A property, and `,asc` or `,desc`. May be repeated; ties break on `id`",
        "schema": {"type": "array", "items": {
            "type": "string", "pattern": format!("^({})(,(asc|desc))?$", names.join("|"))
        }},
    })
}

/// Given several times, one of the values is wanted.
fn filter(property: &Property) -> Value {
    if property.kind == PropertyType::Tags {
        return json!({
            "name": "tag", "in": "query", "style": "form", "explode": true,
            "description": "`tag.team=payments`: what the tag `team` has to be",
            "schema": {"type": "object", "properties": {"tag.team": {"type": "string"}},
                "patternProperties": {"^tag\\..+$": {"type": "string"}}, "additionalProperties": false},
        });
    }
    let items = match property.kind {
        PropertyType::Text | PropertyType::List | PropertyType::Tags | PropertyType::Object => {
            json!({"type": "string", "pattern": "^[^\\u0000]*$"})
        }
        PropertyType::Id("") => json!({"$ref": "#/components/schemas/Uuid"}),
        PropertyType::Id(prefix) => json!({"type": "string", "pattern": format!("^{prefix}[0-9a-f]{{32}}$")}),
        PropertyType::Integer => json!({"type": "integer"}),
        PropertyType::Boolean => json!({"type": "boolean"}),
        PropertyType::Enum(names) => json!({"type": "string", "enum": names}),
        PropertyType::Time => json!({"anyOf": [
            {"type": "string", "format": "date-time"},
            {"type": "string", "pattern": format!("^({TIME}\\.\\.({TIME})?|\\.\\.{TIME})$"),
                "description": "from..to, either end open"},
        ]}),
    };
    json!({"name": property.name, "in": "query", "explode": true, "schema": {"type": "array", "items": items}})
}

fn responses(operation: &Operation) -> Value {
    let mut all = Map::new();
    for (status, schema) in operation.answers {
        all.insert(status.to_string(), answer(operation, *status, schema));
    }
    if operation.method == "get" && is_tagged(operation) {
        all.insert("304".to_owned(), answer(operation, 304, ""));
    }
    if operation.path == "/oauth/token" {
        for status in [400, 401, 503] {
            all.insert(status.to_string(), answer(operation, status, "OAuthError"));
        }
        return Value::Object(all);
    }
    let mut errors = operation.errors.to_vec();
    let needs_token = matches!(operation.access, Access::Scope(_));
    if needs_token {
        errors.extend([400, 401, 403, 503]);
        if !operation.answers.iter().all(|(_, schema)| schema.is_empty()) {
            errors.push(406);
        }
    }
    if operation.path.contains("/{id}") {
        errors.push(404);
    }
    if operation.body.is_some() {
        errors.extend([408, 413, 415]);
    }
    let is_write = matches!(operation.method, "put" | "patch" | "delete");
    if is_write {
        errors.extend([409, 412]);
    }
    if needs_token && operation.method == "post" {
        errors.push(409);
    }
    errors.extend([429, 500]);
    for status in errors {
        all.entry(status.to_string())
            .or_insert_with(|| json!({"$ref": format!("#/components/responses/{status}")}));
    }
    Value::Object(all)
}

fn answer(operation: &Operation, status: u16, schema: &str) -> Value {
    let description = match status {
        200 => "The requested resource",
        201 => "Created",
        202 => "Accepted: `status` shows the progress",
        204 => "Deleted",
        304 => "The resource is unchanged: its ETag matches If-None-Match",
        _ => "Refused",
    };
    let mut it = json!({"description": description});
    let reference = |name: &str| json!({"schema": {"$ref": format!("#/components/schemas/{name}")}});
    match schema {
        "" => {}
        "text" => it["content"] = json!({"text/plain": {"schema": {"type": "string"}}}),
        "html" => it["content"] = json!({"text/html": {"schema": {"type": "string"}}}),
        "any" => it["content"] = json!({"application/json": {"schema": {"type": "object"}}}),
        "events" => {
            // Of the whole stream, or of one event: tools read it one way or the other.
            it["content"] = json!({"text/event-stream": {"schema": {"description": "Server-sent events"}}});
        }
        name => {
            let hal = if let Parameters::List(_) = operation.parameters {
                format!("{name}Hal")
            } else {
                name.to_owned()
            };
            it["content"] = json!({"application/json": reference(name)});
            if matches!(operation.access, Access::Scope(_)) {
                it["content"]["application/hal+json"] = reference(&hal);
            }
            if name == "VpnConfig" {
                it["content"]["text/plain"] = json!({"schema": {"type": "string"}});
            }
        }
    }
    let header = json!({"schema": {"type": "string"}, "required": true});
    if operation.has_location {
        it["headers"]["Location"] = header.clone();
    }
    if status < 300 && operation.method == "get" && is_tagged(operation) {
        it["headers"]["ETag"] = header;
    }
    it
}

#[cfg(test)]
mod tests;
