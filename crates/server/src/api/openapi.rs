//! The OpenAPI document, and the page that shows it.
//!
//! `openapi/base.json` has the fixed parts. Paths are made from the operations, and the schemas and list parameters of
//! resources from their tables of properties. Tests check the document against the router and against every answer
//! that the API's tests see.

mod schemas;

use super::{
    operation::{Access, Operation, Parameters},
    wire::{
        property::{Property, PropertyType},
        query::MOST_ITEMS,
        schema::{self, reference},
    },
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
    let mut document = schema::filled(include_str!("openapi/base.json"));
    document["info"]["version"] = json!(env!("CARGO_PKG_VERSION"));
    document["tags"] = tags(operations);
    for operation in operations {
        document["paths"][operation.path][operation.method] = described(operation);
    }
    schemas::add_resources(&mut document["components"]["schemas"]);
    document
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
        Access::Session => json!([{"session": []}]),
        Access::Scope(scope) => {
            json!([{"bearer": []}, {"basic": []}, {"oauth": [scope]}, {"session": []}])
        }
    };
    if let Some((schema, required)) = operation.body {
        let schema = json!({"schema": reference(schema)});
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
    for name in ["frontdoorId", "id", "linkId", "reason"] {
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
            all.extend([common("page"), common("size")]);
            let listed: Vec<_> = properties.iter().filter(|p| p.column.is_some()).collect();
            // Without a property to sort by, every value would be refused.
            all.extend((!listed.is_empty()).then(|| sort(&listed)));
            all.extend(listed.into_iter().map(filter));
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

fn sort(properties: &[&Property]) -> Value {
    let names: Vec<_> = properties.iter().map(|p| p.name.replace('.', "\\.")).collect();
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
    let mut schema = json!({"type": "array", "items": filter_item(property.kind)});
    if matches!(property.kind, PropertyType::List(_)) {
        schema["maxItems"] = json!(MOST_ITEMS);
    }
    json!({"name": property.name, "in": "query", "explode": true, "schema": schema})
}

fn filter_item(kind: PropertyType) -> Value {
    match kind {
        PropertyType::Text | PropertyType::Tags | PropertyType::Object => {
            json!({"type": "string", "pattern": "^[^\\u0000]*$"})
        }
        PropertyType::Ip => {
            json!({"anyOf": [{"type": "string", "format": "ipv4"}, {"type": "string", "format": "ipv6"}]})
        }
        PropertyType::Network => schema::filled(r#"{"type": "string", "pattern": "^<NETWORK>$"}"#),
        PropertyType::List(of) => filter_item(*of),
        PropertyType::Id("") => reference("Uuid"),
        PropertyType::Id(prefix) => json!({"type": "string", "pattern": format!("^{prefix}[0-9a-f]{{32}}$")}),
        PropertyType::Integer => json!({"type": "integer"}),
        PropertyType::Boolean => json!({"type": "boolean"}),
        PropertyType::Enum(names) => json!({"type": "string", "enum": names}),
        PropertyType::Time => json!({"anyOf": [
            {"type": "string", "format": "date-time"},
            {"type": "string", "pattern": format!("^({TIME}\\.\\.({TIME})?|\\.\\.{TIME})$"),
                "description": "from..to, either end open"},
        ]}),
    }
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
    if matches!(operation.access, Access::Session) {
        errors.extend([401, 403, 503]);
    }
    if needs_token {
        errors.extend([400, 401, 403, 503]);
        if !operation.answers.iter().all(|(_, schema)| schema.is_empty()) {
            errors.push(406);
        }
    }
    if operation.path.contains("/{id}") || operation.path.contains("/{reason}") {
        errors.push(404);
    }
    if operation.body.is_some() {
        errors.extend([408, 413, 415]);
    }
    let is_write = matches!(operation.method, "put" | "patch" | "delete");
    if is_write && needs_token {
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
        303 => "The browser continues at `Location`",
        304 => "The resource is unchanged: its ETag matches If-None-Match",
        _ => "Refused",
    };
    let mut it = json!({"description": description});
    match schema {
        "" => {}
        "text" => it["content"] = json!({"text/plain": {"schema": {"type": "string"}}}),
        "html" => it["content"] = json!({"text/html": {"schema": {"type": "string"}}}),
        "page" => {
            let text = json!({"schema": {"type": "string"}});
            it["content"] = json!({"text/html": text, "text/plain": text});
        }
        "index" => {
            let links = json!({"schema": {"type": "object"}});
            it["content"] = json!({"application/json": links, "text/html": {"schema": {"type": "string"}}});
        }
        "any" => it["content"] = json!({"application/json": {"schema": {"type": "object"}}}),
        "events" => {
            // Of the whole stream, or of one event: tools read it one way or the other.
            it["content"] = json!({"text/event-stream": {"schema": {"description": "Server-sent events"}}});
        }
        "lines" => {
            // Of the whole answer, or of one line, as of events.
            let line =
                json!({"schema": {"description": "A JSON object a line: number, at, group, ikeSa, message"}});
            let event = json!({"schema": {"description": "Server-sent events with the same objects"}});
            it["content"] = json!({"application/x-ndjson": line, "text/event-stream": event});
        }
        name => {
            let hal = if let Parameters::List(_) = operation.parameters {
                format!("{name}Hal")
            } else {
                name.to_owned()
            };
            it["content"] = json!({"application/json": {"schema": reference(name)}});
            if matches!(operation.access, Access::Scope(_)) {
                it["content"]["application/hal+json"] = json!({"schema": reference(&hal)});
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
